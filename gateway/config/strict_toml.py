"""TOML into frozen Structs, or an error that names file, line, key and what would be right.

Owns how a configuration mistake is told; knows no key by name. Used for `gateway.toml`, `throttles.toml` and
`bounces.toml`.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeGuard, TypeVar, get_args

import msgspec

from gateway.errors import ConfigError

T = TypeVar("T")

KeyPath = tuple[str, ...]
"""Table names and key, outermost first. A table of an array, `[[rule]]`, is its name and its number from 1: `rule`, `3`."""

MakeError = Callable[[str, KeyPath, str], ConfigError]
"""Problem, key and hint → the error, with the place where the key was given."""

_UNITS: Final = {
    "_per_s": "per second",
    "_ms": "milliseconds",
    "_s": "seconds",
    "_bytes": "bytes",
    "_file": "the name of a file",
}
_PART: Final = r"""(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)"""
_HEADER: Final = re.compile(rf"\s*\[\[?\s*({_PART}(?:\s*\.\s*{_PART})*)\s*\]")
_KEY: Final = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=")
_PARTS: Final = re.compile(_PART)
_UNKNOWN_FIELD: Final = re.compile(r"Object contains unknown field `(.*?)`")
_MISSING_FIELD: Final = re.compile(r"Object missing required field `(.*?)`")
_NO_CHOICE: Final = re.compile(r"Invalid enum value '(.*)'")
_AT: Final = re.compile(r" - at `\$?(.*)`$")
_SYNTAX_LINE: Final = re.compile(r"\(at line (\d+), column \d+\)")


class Document(msgspec.Struct, frozen=True):
    """A TOML file as read: its data, and its text to find lines in."""

    path: Path
    text: str
    data: dict[str, Any]

    def line_of(self, key: KeyPath) -> int | None:
        """Return the line (1-based) where a key or a table stands, or that of the nearest table above it."""
        best, best_depth = None, 0
        table: KeyPath = ()
        counts: Counter[KeyPath] = Counter()
        for number, line in enumerate(self.text.splitlines(), 1):
            if header := _HEADER.match(line):
                found = _split(header[1])
                if line.lstrip().startswith("[["):
                    counts[found] += 1
                    found = (*found, str(counts[found]))
                table = found
            elif assignment := _KEY.match(line):
                found = (*table, *_split(assignment[1]))
            else:
                continue
            if found[: len(key)] == key:  # the key itself, or a table that made it by the way
                return number
            if len(found) > best_depth and found == key[: len(found)]:
                best, best_depth = number, len(found)
        return best

    def has(self, key: KeyPath) -> bool:
        """Whether the file gives this key or table."""
        node: object = self.data
        for part in key:
            if not isinstance(node, dict) or part not in node:
                return False
            node = node[part]
        return True

    def error(self, problem: str, key: KeyPath, hint: str = "") -> ConfigError:
        """Make the error for a key of this file."""
        return ConfigError(problem, path=self.path, line=self.line_of(key), key=".".join(key), hint=hint)

    def errors_below(self, above: KeyPath) -> MakeError:
        """Return what makes the errors of a table of this file, whose keys are named from there."""
        return lambda problem, key, hint: self.error(problem, (*above, *key), hint)


def read_toml(path: Path) -> Document:
    """Read a TOML file.

    Raises:
        ConfigError: it cannot be read, is not UTF-8, or is not TOML.
    """
    return parse_toml(path, read_text(path))


def read_text(path: Path) -> str:
    """Read a file's text.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except IsADirectoryError as error:
        inside = path / "gateway.toml"
        hint = f"name the file in it, {inside}" if inside.exists() else "a file is wanted"
        raise ConfigError("is a folder", path=path, hint=hint) from error
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", path=path) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"byte {error.start} is not UTF-8", path=path, hint="save the file as UTF-8"
        ) from error


def parse_toml(path: Path, text: str) -> Document:
    """Parse the text of a TOML file.

    Raises:
        ConfigError: it is not TOML.
    """
    try:
        return Document(path, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        at = _SYNTAX_LINE.search(str(error))
        line = int(at[1]) if at else text.count("\n") + 1
        problem = _SYNTAX_LINE.sub("", str(error)).strip()
        hint = "text goes in double quotes, tables in [brackets]"
        raise ConfigError(f"not TOML: {problem}", path=path, line=line, hint=hint) from error


def convert_all(
    data: Mapping[str, Any], into: type[T], make_error: MakeError
) -> tuple[T | None, list[ConfigError]]:
    """Turn parsed TOML into a Struct, and tell every mistake in it.

    Returns:
        The Struct of what was right, where the rest makes one; and an error for each unknown key, wrong type or value out of bounds.
    """
    left = {name: dict(table) if isinstance(table, dict) else table for name, table in data.items()}
    errors: list[ConfigError] = []
    dropped: set[KeyPath] = set()
    while True:
        try:
            return msgspec.convert(left, into), errors
        except msgspec.ValidationError as error:
            if (missing := _MISSING_FIELD.match(str(error))) and (missing[1],) in dropped:
                return None, errors  # it was there, and wrong
            key, problem, hint = explain(error, into)
            errors.append(make_error(problem, key, hint))
            dropped.add(key)
            if not _drop(left, key):
                return None, errors


def _drop(data: dict[str, Any], key: KeyPath) -> bool:
    """Take a key out of tables of tables, or what stands above it; whether anything was taken."""
    head, *rest = key or ("",)
    if head not in data:
        return False
    inner = data[head]
    if not (rest and isinstance(inner, dict) and _drop(inner, tuple(rest))):
        del data[head]
    return True


def explain(error: msgspec.ValidationError, into: object) -> tuple[KeyPath, str, str]:
    """Read msgspec's error: the key below `into`, the problem and a hint, in our words."""
    message = str(error)
    at = _AT.search(message)
    problem = _AT.sub("", message)
    key = (
        tuple(part for part in re.split(r"[.\[\]]+", at[1]) if part and part != "..." and not part.isdigit())
        if at
        else ()
    )
    if unknown := _UNKNOWN_FIELD.match(problem):
        return (*key, unknown[1]), "unknown key", nearest(unknown[1], known_keys(into, key))
    if wrong := _NO_CHOICE.match(problem):
        return key, f'no value "{wrong[1]}"', nearest(wrong[1], _choices(into, key))
    problem = (
        problem.replace("Expected", "expected")
        .replace("`", "")
        .replace("Object missing required field", "missing key")
    )
    if problem.startswith("expected array, got "):
        return key, problem, "a list, in [brackets]"
    return key, problem, _unit_hint(key[-1]) if key else ""


def known_keys(into: object, key: KeyPath = ()) -> tuple[str, ...]:
    """Return the keys of the Struct that stands at `key` below the Struct type `into`."""
    node = _type_at(into, key)
    return tuple(field.encode_name for field in msgspec.structs.fields(node)) if _is_struct(node) else ()


def nearest(wrong: str, known: Iterable[str]) -> str:
    """Return a hint with the known key that looks most like `wrong`, and its unit."""
    known = tuple(known)
    close = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
    if close:
        unit = _unit_hint(close[0])
        return f'did you mean "{close[0]}"' + (f" ({unit})?" if unit else "?")
    return f"known are {', '.join(known)}" if known else ""


def _type_at(into: object, key: KeyPath) -> object:
    node = into
    for part in key:
        fields = msgspec.structs.fields(node) if _is_struct(node) else ()
        node = next((field.type for field in fields if field.encode_name == part), None)
    return node


def _choices(into: object, key: KeyPath) -> tuple[str, ...]:
    """The values of an enum or a Literal, alone, in a tuple or beside None."""
    wanted = _type_at(into, key)
    found: list[str] = []
    for part in (wanted, *get_args(wanted)):
        if isinstance(part, str):
            found.append(part)
        elif isinstance(part, type) and issubclass(part, Enum):
            found += [str(member.value) for member in part]
    return tuple(found)


def _is_struct(node: object) -> TypeGuard[type[msgspec.Struct]]:
    return isinstance(node, type) and issubclass(node, msgspec.Struct)


def _unit_hint(key: str) -> str:
    unit = next((unit for suffix, unit in _UNITS.items() if key.endswith(suffix)), "")
    return f"in {unit}" if unit.endswith("s") else unit


def _split(dotted: str) -> KeyPath:
    return tuple(part.strip("\"'") for part in _PARTS.findall(dotted))
