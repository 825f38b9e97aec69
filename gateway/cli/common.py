"""What the commands share: the two common options, the files they name, and how results are printed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import orjson
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from gateway.app.watch import Files
from gateway.config import Config, Loaded, load_here, read_here
from gateway.errors import ConfigError, GatewayError, Invalid
from gateway.model.address import AddressError, parse
from gateway.model.ids import Prefix, decode
from gateway.mta.bounce_rules import BounceRules, load_bounces
from gateway.throttle.shaping import Shaping, load_throttles

DEFAULT_CONFIG: Final = Path("config/gateway.toml")
_THROTTLES: Final = "throttles.toml"
_BOUNCES: Final = "bounces.toml"
_TABLE_WIDTH: Final = 1_000
_NAME_LIMIT: Final = 200


class UsageError(GatewayError):
    """A command line that cannot be meant: which option, and what would be right."""


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of every command."""

    config: Annotated[
        Path | None,
        Parameter(
            help="The configuration file. Default: config/gateway.toml where there is one, else built-in."
        ),
    ] = None
    json: Annotated[bool, Parameter(negative=(), help="Print JSON alone, for programs.")] = False

    @property
    def path(self) -> Path | None:
        """The configuration file in force, if any."""
        return self.config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)

    @property
    def files(self) -> Files:
        """The three files, whether they are there or not; none where there is no configuration file."""
        path = self.path
        return Files(path, path.with_name(_THROTTLES), path.with_name(_BOUNCES)) if path else Files()

    @property
    def throttles_path(self) -> Path | None:
        """`throttles.toml` beside the configuration file, if there."""
        return self._beside(_THROTTLES)

    @property
    def bounces_path(self) -> Path | None:
        """`bounces.toml` beside the configuration file, if there."""
        return self._beside(_BOUNCES)

    def load(self) -> Config:
        """The configuration.

        Raises:
            ConfigError: what has to be mended, and where.
        """
        self._require_file()
        return load_here(self.path)

    def read(self) -> Loaded:
        """The configuration with where each value is from, and every mistake.

        Raises:
            ConfigError: the file cannot be read, or is not TOML.
        """
        self._require_file()
        return read_here(self.path)

    def load_shaping(self) -> Shaping:
        """The throttles; the built-in ones where there is no file.

        Raises:
            ConfigError: what has to be mended, and where.
        """
        return load_throttles(self.throttles_path) if self.throttles_path else Shaping()

    def load_bounces(self) -> BounceRules:
        """The rules for replies that come before the built-in ones; none where there is no file.

        Raises:
            ConfigError: what has to be mended, and where.
        """
        return load_bounces(self.bounces_path) if self.bounces_path else BounceRules()

    def _require_file(self) -> None:
        if self.config is not None and not self.config.exists():
            raise ConfigError("no such file", path=self.config, hint="name it with --config")

    def _beside(self, name: str) -> Path | None:
        beside = self.path.with_name(name) if self.path else None
        return beside if beside and beside.exists() else None


DEFAULTS: Final = Common()
"""For a parameter's default: commands are called without these options too."""


def print_json(document: object) -> None:
    """Print a document as one line."""
    sys.stdout.write(orjson.dumps(document, default=str).decode() + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Print a line as it is, without markup."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print a table; numbers stand right, with separators."""
    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    shown = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    numeric = [
        all(row[i].replace(",", "").lstrip("-").isdigit() for row in shown) for i in range(len(columns))
    ]
    for name, right in zip(columns, numeric, strict=True):
        table.add_column(name, justify="right" if right and shown else "left")
    for row in shown:
        table.add_row(*row)
    # As wide as it is: a terminal breaks lines, a program must not find cells cut off.
    Console(file=sys.stdout, highlight=False, width=_TABLE_WIDTH).print(table, markup=False)


def number_of(prefix: Prefix, text: str, option: str) -> int:
    """The number of an id as a user writes it: `site_…`, or the number itself.

    Raises:
        UsageError: neither; `option` says where it stood.
    """
    if text.isdecimal():
        return int(text)
    try:
        return decode(prefix, text)
    except Invalid as error:
        raise UsageError(f'{option}: "{text}": {error}') from error


def site_number(text: str) -> int:
    """The number of the site that `--site` names.

    Raises:
        UsageError: no id, and no number of one.
    """
    number = number_of(Prefix.SITE, text, "--site")
    if number >= 1 << 31:
        raise UsageError(f'--site: "{text}" is no number of a site')
    return number


def domain_name(text: str, option: str) -> str:
    """A domain as a user writes it, in lower case and with A-labels.

    Raises:
        UsageError: it is none; `option` says where it stood.
    """
    try:
        return parse(f"postmaster@{text.removesuffix('.')}").domain
    except AddressError as error:
        raise UsageError(f'{option}: "{text}" is no domain; say it as in example.org') from error


def check_name(text: str, option: str) -> None:
    """Hold a name to what the API takes.

    Raises:
        UsageError: it is empty, too long, or has what no line can show.
    """
    if not text.strip() or len(text) > _NAME_LIMIT or not text.isprintable():
        raise UsageError(f"{option}: expected 1 to {_NAME_LIMIT} printable characters")


def moment(at: datetime | None, otherwise: str = "") -> str:
    """A time for people, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if at else otherwise
