"""`gateway openapi`."""

from __future__ import annotations

from gateway.api.openapi import document
from gateway.api.server import endpoints
from gateway.cli.common import print_json


def openapi() -> None:
    """Print the OpenAPI document of the control API: what a running gateway gives at /openapi.json.

    Example: gateway openapi > openapi.json
    """
    print_json(document(endpoints()))
