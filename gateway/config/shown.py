"""Values as people read them: every key with its source, what changed between two configurations, and no secret.

Owns what is masked. Must not know how anything is printed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from gateway.config.live import is_live
from gateway.config.load import Loaded
from gateway.config.strict_toml import KeyPath

SECRETS: Final[frozenset[KeyPath]] = frozenset({("database", "dsn")})
"""Keys whose value may hold a password."""

CHANGES_SHOWN: Final = 20
"""Changes that one log line names; of the others it gives the number."""

_MASK: Final = "…"
# A password in a URL may hold "@" unescaped, so up to the last one; in a query or a keyword list it is named.
_URL_PASSWORD: Final = re.compile(r"(?<=://)([^:@/?]*):.*@")
_NAMED_PASSWORD: Final = re.compile(r"(?i)(password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]*)")


class Value(msgspec.Struct, frozen=True):
    """One key of `gateway.toml` in force.

    Attributes:
        key: dotted, as in errors: `dispatch.in_flight`.
        value: as TOML has it; secrets are masked.
        source: `default`, `file:line`, or `environment NAME`.
        live: whether a change is taken without a restart.
    """

    key: str
    value: object
    source: str
    live: bool


class Change(msgspec.Struct, frozen=True):
    """A key that differs between two configurations; None where it is not there."""

    key: KeyPath
    before: object
    after: object

    def __str__(self) -> str:
        """Say it in a line, without secrets."""
        before, after = (_said(masked(self.key, value)) for value in (self.before, self.after))
        return f"{'.'.join(self.key)}: {before} → {after}"


def values(loaded: Loaded) -> list[Value]:
    """Return every key, section by section; each entry of `route.domains` by itself."""
    return [
        Value(".".join(key), masked(key, value), loaded.source(key), is_live(key))
        for key, value in _leaves(msgspec.to_builtins(loaded.config), (), keep_empty=True)
    ]


def changes(before: msgspec.Struct, after: msgspec.Struct) -> list[Change]:
    """Return what differs between two Structs of one type, key by key."""
    old, new = dict(_flat(before)), dict(_flat(after))
    keys = [*old, *(key for key in new if key not in old)]
    return [Change(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def told(items: Iterable[object]) -> list[str]:
    """Return items as text, at most `CHANGES_SHOWN`, and the number of the others."""
    lines = [str(item) for item in items]
    more = len(lines) - CHANGES_SHOWN
    return [*lines[:CHANGES_SHOWN], f"… and {more} more"] if more > 0 else lines


def text_of(value: object) -> str:
    """Write a value as people read it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(text_of, value))}]"
    return str(value) if value != "" else '""'


def masked(key: KeyPath, value: object) -> object:
    """Return a value that may be shown: of a secret all but its password."""
    if key not in SECRETS or not isinstance(value, str):
        return value
    return _NAMED_PASSWORD.sub(rf"\1{_MASK}", _URL_PASSWORD.sub(rf"\1:{_MASK}@", value))


def _flat(struct: msgspec.Struct) -> Iterator[tuple[KeyPath, object]]:
    return _leaves(msgspec.to_builtins(struct), (), keep_empty=False)


def _leaves(
    table: Mapping[str, Any], above: KeyPath, *, keep_empty: bool
) -> Iterator[tuple[KeyPath, object]]:
    """Yield each key with its value; entries of tables by themselves, what is not set not at all."""
    for name, value in table.items():
        key = (*above, name)
        if isinstance(value, dict) and (value or not keep_empty):
            yield from _leaves(value, key, keep_empty=keep_empty)
        else:
            yield key, value


def _said(value: object) -> str:
    return "(not set)" if value is None else text_of(value)
