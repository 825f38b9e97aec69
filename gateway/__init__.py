"""A high-throughput async delivery gateway: control API, Postgres queue, DKIM, SMTP."""

from importlib.metadata import version
from typing import Final

__version__: Final = version("delivery-gateway")
