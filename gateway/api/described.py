"""What the OpenAPI document says of values beyond their types: the form of ids and addresses. Pure.

Owns these words, for the document alone: they are checked by those who read them (`model/ids`, `model/address`), whose refusals say what
was wrong. Must not know a resource.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from gateway.model.ids import SMALL, Prefix

_DIGIT: Final = "[0-9a-hjkmnp-tv-z]"


class Described(msgspec.Struct, frozen=True):
    """A parameter: what it means, and a JSON Schema of its values."""

    what: str
    schema: dict[str, Any]


def id_pattern(prefix: Prefix) -> str:
    """Return the regular expression that ids of a kind fit, and nothing else does (`model/ids`)."""
    digits = f"000000[01]{_DIGIT}{{6}}" if prefix in SMALL else f"[0-7]{_DIGIT}{{12}}"
    return f"^{prefix}_{digits}$"


def id_schema(prefix: Prefix, *, empty: bool = False) -> dict[str, Any]:
    """Return the schema of an id; `empty`: or of nothing, which means the same as leaving it out."""
    pattern = id_pattern(prefix)
    return {"type": "string", "pattern": f"^({pattern[1:-1]})?$" if empty else pattern}


def or_nothing(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of what fits `schema`, or of nothing, which means the same as leaving it out."""
    return {"type": "string", "anyOf": [{"maxLength": 0}, schema]}


def one_of(values: Iterable[str], what: str, *, empty: bool = True) -> Described:
    """Describe a parameter with a word of an enumeration; `empty`: or nothing, which means the same as leaving it out."""
    return Described(
        what, {"type": "string", "enum": [*([""] if empty else []), *(str(one) for one in values)]}
    )


def _id(prefix: Prefix) -> Meta:
    return Meta(extra_json_schema={"pattern": id_pattern(prefix)})


ADDRESS: Final = {"type": "string", "format": "idn-email"}
TIME: Final = {"type": "string", "format": "date-time"}

SiteId = Annotated[str, _id(Prefix.SITE)]
ContactId = Annotated[str, _id(Prefix.CONTACT)]
ListId = Annotated[str, _id(Prefix.LIST)]
TemplateId = Annotated[str, _id(Prefix.TEMPLATE)]
Address = Annotated[str, Meta(max_length=320, extra_json_schema={"format": "idn-email"})]
