"""Configuration: `config/gateway.toml` and the environment, as frozen Structs.

`sections` owns the keys, their bounds and defaults; `load` the order in which file and environment speak; `consistency` what
values mean together; `live` which of them change without a restart; `shown` how they are shown, with their sources and without
secrets; `strict_toml` how a TOML file becomes a Struct, or an error with file, line, key and the nearest known key. Nobody else
reads `os.environ`; nobody reads it at import.
"""

import os
from pathlib import Path

from gateway.config.load import Loaded, load, read, read_document
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
    MetricsConfig,
    MxConfig,
    RetentionConfig,
    RetryConfig,
    RouteConfig,
    SubmissionConfig,
    TrackConfig,
)
from gateway.config.strict_toml import Document

__all__ = [
    "ApiConfig",
    "Config",
    "DatabaseConfig",
    "DispatchConfig",
    "DoubtConfig",
    "ExpiryConfig",
    "KeysConfig",
    "ListenConfig",
    "Loaded",
    "MailConfig",
    "MetricsConfig",
    "MxConfig",
    "RetentionConfig",
    "RetryConfig",
    "RouteConfig",
    "SubmissionConfig",
    "TrackConfig",
    "load",
    "load_here",
    "read_document_here",
    "read_here",
]


def load_here(path: Path | None) -> Config:
    """`load` with this process's environment.

    Raises:
        ConfigError: as `load`.
    """
    return load(path, os.environ)


def read_here(path: Path | None) -> Loaded:
    """`load.read` with this process's environment.

    Raises:
        ConfigError: as `load.read`.
    """
    return read(path, os.environ)


def read_document_here(document: Document) -> Loaded:
    """`load.read_document` with this process's environment."""
    return read_document(document, os.environ)
