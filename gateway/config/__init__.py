"""Configuration: `config/gateway.toml` and the environment, as frozen Structs.

`sections` owns the keys, their bounds and defaults; `load` the order in which file and environment speak; `strict_toml`
how a TOML file becomes a Struct, or an error with file, line, key and the nearest known key. Nobody else reads
`os.environ`; nobody reads it at import.
"""

import os
from pathlib import Path

from gateway.config.load import load
from gateway.config.sections import (
    ApiConfig,
    Config,
    DatabaseConfig,
    DispatchConfig,
    DoubtConfig,
    ExpiryConfig,
    KeysConfig,
    ListenConfig,
    MailConfig,
    MxConfig,
    RetryConfig,
    RouteConfig,
    SubmissionConfig,
    TrackConfig,
)

__all__ = [
    "ApiConfig",
    "Config",
    "DatabaseConfig",
    "DispatchConfig",
    "DoubtConfig",
    "ExpiryConfig",
    "KeysConfig",
    "ListenConfig",
    "MailConfig",
    "MxConfig",
    "RetryConfig",
    "RouteConfig",
    "SubmissionConfig",
    "TrackConfig",
    "load",
    "load_here",
]


def load_here(path: Path | None) -> Config:
    """`load` with this process's environment.

    Raises:
        ConfigError: as `load`.
    """
    return load(path, os.environ)
