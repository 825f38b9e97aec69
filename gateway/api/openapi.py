"""`/openapi.json` and `/docs`: the table of routes as an OpenAPI 3.1 document.

Owns the translation. Must not know a resource: what is not in the table of `api/endpoint` is not in the document, and what is
there cannot be missing here. Every status that a route can answer is there, with the types of problems that stand behind it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

import msgspec
from msgspec.inspect import DateTimeType, StructType
from msgspec.inspect import Type as InfoType
from msgspec.inspect import UnionType as UnionInfo

from gateway.api import reference
from gateway.api.described import Described, id_schema
from gateway.api.endpoint import PAGE_DEFAULT, PAGE_LIMIT, Access, Call, Endpoint, Routes
from gateway.api.errors import BUG_TYPE, PROBLEM_JSON, TYPES, ProblemBody
from gateway.api.serving import KEY_LIMIT, Reply
from gateway.model.ids import Prefix

routes = Routes("openapi")

_REFERENCE: Final = "#/components/schemas/{name}"
_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_WATCHED: Final = frozenset({"/healthz", "/metrics", "/openapi.json", "/docs"})
"""What answers without a database."""
_IDS: Final = {
    "sites": Prefix.SITE, "keys": Prefix.KEY, "domains": Prefix.DOMAIN, "contacts": Prefix.CONTACT, "contact": Prefix.CONTACT,
    "members": Prefix.CONTACT, "lists": Prefix.LIST, "imports": Prefix.IMPORT, "templates": Prefix.TEMPLATE, "messages": Prefix.MESSAGE,
    "broadcasts": Prefix.BROADCAST, "deliveries": Prefix.DELIVERY, "why": Prefix.DELIVERY, "lanes": Prefix.LANE,
    "erasures": Prefix.ERASURE, "sent": Prefix.DELIVERY,
}  # fmt: skip
"""What the ids are of, by the word of the path that stands before them, or at its end."""
_WHAT: Final = """Every answer has an `X-Request-Id`. What went wrong is told as RFC 9457 says, in `application/problem+json`; its `type` is one
of those named with each status. Unknown fields are refused, and so is the character U+0000 anywhere; whole numbers are written without a fraction; times are RFC 3339,
in UTC; lists are read page by page, with `after` = the
`next` of the page before."""
_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key with the same request gives the answer that the first one got, for 24 hours at least",
    "schema": {"type": "string", "pattern": f"^[!-~]([ -~]{{0,{KEY_LIMIT - 2}}}[!-~])?$"},
}
_AFTER: Final = "`next` of the page before"
_document: bytes = b"{}"
_page: bytes = b""


@routes.add("GET", "/openapi.json", answer=dict[str, Any], access=Access.PUBLIC, own_transaction=True)
async def get_document(_: Call) -> Reply:
    """Give this document."""
    return Reply(_document)


@routes.add(
    "GET", "/docs", answer=str, access=Access.PUBLIC, own_transaction=True, media_type="text/html",
    gives={"Content-Security-Policy": "the page loads nothing"},
)  # fmt: skip
async def get_page(_: Call) -> Reply:
    """Show this document as a page to read."""
    return Reply(_page, headers=reference.HEADERS)


def publish(endpoints: Sequence[Endpoint]) -> None:
    """Make the document that is given from now on, and its page."""
    global _document, _page
    described = document(endpoints)
    _document, _page = msgspec.json.encode(described), reference.page(described)


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Describe routes."""
    given = [
        type_ for endpoint in endpoints for type_ in (endpoint.body, endpoint.answer) if type_ is not None
    ]
    types = list(dict.fromkeys([option for type_ in given for option in _options(type_)] + [ProblemBody]))
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    by_type = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, by_type)
    for schema in components.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    for name, field in _times(types):
        _say_time(components[name]["properties"][field])
    described = {
        "openapi": "3.1.0",
        "info": {
            "title": "Delivery gateway: control API",
            "version": metadata.version("delivery-gateway"),
            "description": " ".join(_WHAT.split()),
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": group} for group in dict.fromkeys(endpoint.group for endpoint in endpoints)],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key"}},
        },
    }
    return msgspec.json.decode(
        msgspec.json.encode(described)
    )  # defaults are tuples and enumerations until then


def _operation(endpoint: Endpoint, by_type: Mapping[Any, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": "Done.",
        "headers": {**_headers(endpoint.gives), **_rates(endpoint)},
    }
    if endpoint.answer is not None:
        answer["content"] = {endpoint.media_type.split(";")[0]: {"schema": _given(endpoint, by_type)}}
    also = {
        str(status): {"description": what, "headers": {**_headers({}), **_rates(endpoint)}}
        for status, what in endpoint.statuses.items()
    }
    operation: dict[str, Any] = {
        "operationId": endpoint.handler.__name__,
        "summary": endpoint.summary,
        "tags": [endpoint.group],
        "parameters": _parameters(endpoint),
        "responses": {str(endpoint.status): answer, **also, **_problems(endpoint)},
    }
    if endpoint.access is not Access.PUBLIC:
        operation["security"] = [{"key": []}]
        scopes = ", ".join(sorted(endpoint.scopes)) or "any"
        operation["description"] = f"Key: {endpoint.access}. Scope: {scopes}."
    if endpoint.body is not None:
        schema = {**_schema(endpoint.body, by_type), **endpoint.rules}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    elif endpoint.uploads:
        content = {kind: {"schema": schema} for kind, schema in endpoint.uploads.items()}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _times(types: Sequence[Any]) -> set[tuple[str, str]]:
    """Structs and their fields that are times, which msgspec describes as any text where no time zone is asked for."""
    found: set[tuple[str, str]] = set()
    seen: set[type] = set()

    def look(info: object) -> None:
        if isinstance(info, StructType):
            if info.cls in seen:
                return
            seen.add(info.cls)
            for field in info.fields:
                options = field.type.types if isinstance(field.type, UnionInfo) else (field.type,)
                if any(isinstance(option, DateTimeType) for option in options):
                    found.add((info.cls.__name__, field.encode_name))
                look(field.type)
        for inner in (
            *getattr(info, "types", ()),
            getattr(info, "item_type", None),
            getattr(info, "type", None),
        ):
            if isinstance(inner, InfoType):
                look(inner)

    for info in msgspec.inspect.multi_type_info(types):
        look(info)
    return found


def _say_time(schema: dict[str, Any]) -> None:
    for option in schema.get("anyOf", [schema]):
        if option.get("type") == "string":
            option["format"] = "date-time"


def _options(type_: Any) -> tuple[Any, ...]:
    """The types of a union of Structs, which msgspec cannot describe as one."""
    return get_args(type_) if get_origin(type_) in (Union, UnionType) else (type_,)


def _schema(type_: Any, by_type: Mapping[Any, Any]) -> Any:
    schemas = [by_type[option] for option in _options(type_)]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _given(endpoint: Endpoint, by_type: Mapping[Any, Any]) -> Any:
    if endpoint.answer is bytes:
        return {}  # octets as they are, which have no JSON Schema
    if endpoint.media_type == "text/event-stream":
        name = endpoint.answer.__name__
        return {"type": "string", "description": f"Events; the data of each is a {name}, as JSON"}
    return _schema(endpoint.answer, by_type)


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    words = endpoint.path.split("/")
    found: list[dict[str, Any]] = []
    for name in _PARAMETER.findall(endpoint.path):
        before = name if name in _IDS else words[words.index(f"{{{name}}}") - 1]
        schema = id_schema(_IDS[before]) if before in _IDS else {"type": "string", "minLength": 1}
        found.append({"name": name, "in": "path", "required": True, "schema": schema})
    if endpoint.is_page:
        size = {"type": "integer", "minimum": 1, "maximum": PAGE_LIMIT, "default": PAGE_DEFAULT}
        found.append({"name": "limit", "in": "query", "schema": size})
        if "after" not in endpoint.query:
            after = id_schema(_IDS[words[-1]], empty=True) if words[-1] in _IDS else {"type": "string"}
            found.append({"name": "after", "in": "query", "schema": after, "description": _AFTER})
    for name, given in endpoint.query.items():
        one = given if isinstance(given, Described) else Described(given, {"type": "string"})
        found.append({"name": name, "in": "query", "schema": one.schema, "description": one.what})
    if _takes_key(endpoint):
        found.append(_KEY)
    found += [
        {"name": name, "in": "header", "schema": {"type": "string"}, "description": what}
        for name, what in endpoint.reads.items()
    ]
    return found


def _headers(more: Mapping[str, str]) -> dict[str, Any]:
    text = {"schema": {"type": "string"}, "required": True}
    own = {name: {"description": what, **text} for name, what in more.items()}
    return {"X-Request-Id": {"description": "this request, in logs and problems", **text}, **own}


def _rates(endpoint: Endpoint, status: int = 200) -> dict[str, Any]:
    """The fields that tell of a key's rate: not before the key is known, and not when that could not be looked up."""
    if endpoint.access is Access.PUBLIC or status == 401:
        return {}
    field = {"schema": {"type": "string"}, "required": status not in (403, 500, 503)}
    return {
        "RateLimit-Policy": {"description": "how many requests in how many seconds", **field},
        "RateLimit": {"description": "how many more now, and in how many seconds all of them again", **field},
    }


def _takes_key(endpoint: Endpoint) -> bool:
    return endpoint.method == "POST" and endpoint.access is not Access.PUBLIC


def _problem_types(endpoint: Endpoint) -> set[str]:
    types = set(endpoint.problems)
    if endpoint.path not in _WATCHED:
        types.add("unavailable")
    if endpoint.access is not Access.PUBLIC:
        types |= {"unauthorized", "forbidden", "rate_limited"}
        if endpoint.method != "GET" or endpoint.query or endpoint.is_page:
            types.add("invalid")
    if "{" in endpoint.path:
        types.add("not_found")
    if endpoint.campaigns:
        types.add("campaigns_disabled")
    if _takes_key(endpoint):
        types.add("idempotency_mismatch")
    return types


def _problems(endpoint: Endpoint) -> dict[str, Any]:
    """What can go wrong, by status: the types that stand for it."""
    by_status: dict[int, list[str]] = {500: [BUG_TYPE]}
    for type_ in sorted(_problem_types(endpoint)):
        by_status.setdefault(TYPES[type_].status, []).append(type_)
    if endpoint.access is not Access.PUBLIC and endpoint.method != "GET":
        by_status |= {400: ["invalid"], 413: ["invalid"]}
    return {str(status): _problem(endpoint, status, types) for status, types in sorted(by_status.items())}


def _problem(endpoint: Endpoint, status: int, types: Sequence[str]) -> dict[str, Any]:
    headers = {
        401: {"WWW-Authenticate": "Bearer"},
        429: {"Retry-After": "seconds to wait"},
        503: {"Retry-After": "seconds to wait"},
    }
    schema = {
        "$ref": _REFERENCE.format(name=ProblemBody.__name__),
        "properties": {"type": {"enum": list(types)}, "status": {"const": status}},
    }
    return {
        "description": " or ".join(f"`{type_}`" for type_ in types),
        "headers": {**_headers(headers.get(status, {})), **_rates(endpoint, status)},
        "content": {PROBLEM_JSON: {"schema": schema}},
    }
