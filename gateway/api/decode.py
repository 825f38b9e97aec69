"""JSON bodies into Structs, or an `Invalid` that points at what is wrong. Pure.

Owns the translation of msgspec's words into JSON pointers. Must not know a resource. Strict: no text for a number, no unknown
field (the Structs say so), no NUL anywhere (Postgres has no place for it).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

import msgspec
from msgspec import inspect

from gateway.api.errors import Malformed
from gateway.errors import Invalid

T = TypeVar("T")

_AT: Final = re.compile(r" - at `\$?(?P<path>.*)`$", re.DOTALL)
_FIELD: Final = re.compile(r"Object (?:contains unknown|missing required) field `(?P<name>.*)`", re.DOTALL)
_WORD: Final = re.compile(r"Invalid enum value (?P<value>.*)", re.DOTALL)
_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_ANYTHING: Final = msgspec.json.Decoder(Any)


def decode(body: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode a body.

    Raises:
        Malformed: it is not JSON.
        Invalid: a field is missing, unknown, of a wrong type or out of bounds, or holds a NUL; says which.
    """
    try:
        value = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Invalid([explain(str(error), decoder.type)]) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed([("", f"not JSON: {error}" if body else "an empty body; expected JSON")]) from error
    if b"\\u0000" in bytes(body):
        for pointer in _nuls(_ANYTHING.decode(body), ""):
            raise Invalid([(pointer, "a NUL character (U+0000)")])
    return value


def explain(message: str, type_: Any = Any) -> tuple[str, str]:
    """Split a message of msgspec into a JSON pointer and what is wrong there; `type_`, of the whole body, tells which words a place takes."""
    at = _AT.search(message)
    path = at["path"] if at else ""
    text = message[: at.start()] if at else message
    found = [name or index for name, index in _STEP.findall(path)]
    steps = [step for step in found if step != "..."]
    if given := _WORD.match(text):
        words = ", ".join(map(str, _words([inspect.type_info(type_)], found)))
        text = f"{given['value']} is not possible; expected {words}" if words else text
    if field := _FIELD.match(text):
        steps.append(field["name"])
        text = "unknown field" if "unknown" in text else "required"
    pointer = "".join("/" + escape(step) for step in steps)
    return pointer, text[:1].lower() + text[1:].replace("`", "")


def escape(step: str) -> str:
    """Escape one step of a JSON pointer (RFC 6901 §3)."""
    return step.replace("~", "~0").replace("/", "~1")


def _words(types: Sequence[inspect.Type], steps: Sequence[str]) -> list[object]:
    """The words that the place at `steps` takes."""
    types = [
        one for type_ in types for one in (type_.types if isinstance(type_, inspect.UnionType) else (type_,))
    ]
    if steps:
        return _words(
            [inner for type_ in types if (inner := _within(type_, steps[0])) is not None], steps[1:]
        )
    words: list[object] = []
    for type_ in types:
        if isinstance(type_, inspect.EnumType):
            words += list(type_.cls)
        elif isinstance(type_, inspect.LiteralType):
            words += type_.values
    return words


def _within(type_: inspect.Type, step: str) -> inspect.Type | None:
    if isinstance(type_, inspect.StructType):
        return next((field.type for field in type_.fields if field.encode_name == step), None)
    if isinstance(type_, inspect.CollectionType):
        return type_.item_type
    return type_.value_type if isinstance(type_, inspect.DictType) else None


def _nuls(value: object, pointer: str) -> Iterator[str]:
    if isinstance(value, str):
        if "\0" in value:
            yield pointer
    elif isinstance(value, Mapping):
        for key, inner in cast(Mapping[str, object], value).items():
            if "\0" in key:
                yield pointer
            yield from _nuls(inner, f"{pointer}/{escape(key)}")
    elif isinstance(value, Sequence):
        for index, inner in enumerate(cast(Sequence[object], value)):
            yield from _nuls(inner, f"{pointer}/{index}")
