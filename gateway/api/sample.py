"""A value that fits a JSON Schema, for examples: what is required, and little else. Pure.

Owns the choice. Must not know a route. It knows as much of JSON Schema as the document of `api/openapi` has in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, cast

Schema = Mapping[str, Any]

_ID: Final = re.compile(r"\^\(?([a-z]+)_\S")
_FORMATS: Final = {"idn-email": "ada@example.com", "date-time": "2027-01-31T08:00:00Z"}
_NAMED: Final = {
    "from": "News <news@example.com>", "to": "ada@example.com", "email": "ada@example.com", "name": "Spring news", "subject": "Hello",
    "text": "Dear Ada, …", "html": "<p>Dear Ada, …</p>", "time_zone": "Europe/Paris", "why": "a complaint", "domain": "example.com",
    "filename": "price-list.pdf", "content_type": "application/pdf",
}  # fmt: skip
"""Words for well-known fields, where the schema lets any stand."""


def sample(schema: Schema, components: Mapping[str, Schema], name: str = "") -> Any:
    """Return a value that fits `schema`; `name` is that of its field, which may say what is usual there."""
    if "$ref" in schema:
        target = components[str(schema["$ref"]).rpartition("/")[2]]
        return sample(
            {**target, **{key: value for key, value in schema.items() if key != "$ref"}}, components
        )
    if schema.get("properties") or schema.get("type") == "object":
        return _object(schema, components)
    for word in ("anyOf", "oneOf"):
        if word in schema and "type" not in schema:
            return sample(schema[word][0], components, name)
    if "enum" in schema:
        return next(value for value in schema["enum"] if value != "")
    if schema.get("type") == "array":
        return [sample(schema["items"], components, name)]
    if schema.get("type") == "string":
        return _text(schema, name)
    return {"integer": max(1, schema.get("minimum", 1)), "number": max(1, schema.get("minimum", 1)), "boolean": True}.get(
        str(schema.get("type"))
    )  # fmt: skip


def _object(schema: Schema, components: Mapping[str, Schema]) -> dict[str, Any]:
    properties = cast("Mapping[str, Schema]", schema.get("properties", {}))
    wanted = list(schema.get("required", ()))
    for option in (schema.get("oneOf") or schema.get("anyOf") or ())[:1]:
        wanted += option.get("required", ())
    if not wanted:
        wanted = list(properties)[:1]
    if {"subject", "text", "template"} <= set(properties):
        wanted += ["subject", "text"]  # a message's own content
    return {name: sample(properties[name], components, name) for name in dict.fromkeys(wanted)}


def _text(schema: Schema, name: str) -> str:
    if "format" in schema:
        return _FORMATS.get(schema["format"], "…")
    for option in schema.get("anyOf", ()):
        if "format" in option:
            return _FORMATS.get(option["format"], "…")
    if found := _ID.match(schema.get("pattern", "")):
        return f"{found[1]}_0000000000001"
    if schema.get("contentEncoding") == "base64":
        return "SGVsbG8="
    if schema.get("minLength", 0) > 1:
        return "example.com"
    return _NAMED.get(name, "text")
