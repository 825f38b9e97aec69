"""`/openapi.json`: the table of routes as an OpenAPI 3.1 document.

Owns the translation. Must not know a resource: what is not in the table of `api/endpoint` is not in the document, and what is
there cannot be missing here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from types import UnionType
from typing import Any, Final, get_args

import msgspec

from gateway.api.endpoint import Access, Call, Endpoint, Routes
from gateway.api.errors import PROBLEM_JSON, TYPES, ProblemBody
from gateway.api.serving import Reply

routes = Routes("openapi")

_REFERENCE: Final = "#/components/schemas/{name}"
_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_SENDING: Final = frozenset(
    {
        "POST /v1/messages",
        "POST /v1/broadcasts",
        "PATCH /v1/broadcasts/{id}",
        "POST /v1/broadcasts/{id}/actions/send",
        "POST /v1/broadcasts/{id}/actions/schedule",
        "POST /v1/broadcasts/{id}/actions/test",
        "POST /v1/templates/{id}/actions/test",
    }
)
"""Routes that need a verified domain."""
_STATEFUL: Final = re.compile(r"/v1/(broadcasts|messages|lanes|sites)/\{id\}(/|$)")
_document: bytes = b"{}"


@routes.add("GET", "/openapi.json", answer=dict[str, Any], access=Access.PUBLIC, own_transaction=True)
async def get_document(_: Call) -> Reply:
    """Give this document."""
    return Reply(_document)


def publish(endpoints: Sequence[Endpoint]) -> None:
    """Make the document that is given from now on."""
    global _document
    _document = msgspec.json.encode(document(endpoints))


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
    return {
        "openapi": "3.1.0",
        "info": {"title": "Delivery gateway: control API", "version": metadata.version("delivery-gateway")},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint, by_type: Mapping[Any, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "Done."}
    if endpoint.answer is not None:
        answer["content"] = {endpoint.media_type.split(";")[0]: {"schema": _schema(endpoint.answer, by_type)}}
    operation: dict[str, Any] = {
        "operationId": endpoint.handler.__name__,
        "summary": endpoint.summary,
        "tags": [endpoint.group],
        "parameters": _parameters(endpoint),
        "responses": {str(endpoint.status): answer, **_problems(endpoint)},
    }
    if endpoint.access is not Access.PUBLIC:
        operation["security"] = [{"key": []}]
        scopes = ", ".join(sorted(endpoint.scopes)) or "any"
        operation["description"] = f"Key: {endpoint.access}. Scope: {scopes}."
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _schema(endpoint.body, by_type)}},
        }
    elif endpoint.consumes:
        operation["requestBody"] = {
            "required": True,
            "content": {endpoint.consumes: {"schema": {"type": "string"}}},
        }
    elif endpoint.path == "/v1/imports" and endpoint.method == "POST":
        form = {"type": "object", "required": ["file"], "properties": {
            "file": {"type": "string", "contentMediaType": "text/csv"}, "list": {"type": "string"},
        }}  # fmt: skip
        operation["requestBody"] = {
            "required": True,
            "content": {"text/csv": {"schema": {"type": "string"}}, "multipart/form-data": {"schema": form}},
        }
    return operation


def _options(type_: Any) -> tuple[Any, ...]:
    """The types of a union of Structs, which msgspec cannot describe as one."""
    return get_args(type_) if isinstance(type_, UnionType) else (type_,)


def _schema(type_: Any, by_type: Mapping[Any, Any]) -> Any:
    schemas = [by_type[option] for option in _options(type_)]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    text = {"type": "string"}
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": text}
        for name in _PARAMETER.findall(endpoint.path)
    ]
    if endpoint.is_page:
        found.append(
            {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000}}
        )
        found.append(
            {"name": "after", "in": "query", "schema": text, "description": "`next` of the page before"}
        )
    found += [
        {"name": name, "in": "query", "schema": text, "description": what}
        for name, what in endpoint.query.items()
    ]
    if endpoint.method == "POST":
        found.append({"name": "Idempotency-Key", "in": "header", "schema": {**text, "maxLength": 255}})
    return found


def _moves(endpoint: Endpoint) -> bool:
    """Whether a route changes the state of something, which its state may not allow."""
    acts = "/actions/" in endpoint.path and not endpoint.path.endswith(("/estimate", "/test"))
    changes = acts or endpoint.method in ("PATCH", "DELETE")
    return changes and _STATEFUL.match(endpoint.path) is not None


def _problems(endpoint: Endpoint) -> dict[str, Any]:
    """What can go wrong, by status: the types that stand for it."""
    types = {"unavailable"} if endpoint.path not in ("/healthz", "/metrics", "/openapi.json") else set[str]()
    if endpoint.access is not Access.PUBLIC:
        types |= {"unauthorized", "forbidden", "invalid", "rate_limited"}
    if "{" in endpoint.path:
        types.add("not_found")
    if endpoint.campaigns:
        types.add("campaigns_disabled")
    if endpoint.method == "POST":
        types.add("idempotency_mismatch")
    if endpoint.method in ("POST", "PUT", "PATCH", "DELETE"):
        types.add("conflict")
    if _moves(endpoint):
        types.add("invalid_transition")
    if f"{endpoint.method} {endpoint.path}" in _SENDING:
        types.add("domain_unverified")
    by_status: dict[str, list[str]] = {}
    for type_ in sorted(types):
        by_status.setdefault(str(TYPES[type_].status), []).append(type_)
    if (
        endpoint.body is not None
        or endpoint.consumes
        or f"{endpoint.method} {endpoint.path}" == "POST /v1/imports"
    ):
        by_status.setdefault("400", []).append("invalid")
        by_status.setdefault("413", []).append("invalid")
    schema = {"$ref": _REFERENCE.format(name="ProblemBody")}
    return {
        status: {"description": " or ".join(names), "content": {PROBLEM_JSON: {"schema": schema}}}
        for status, names in sorted(by_status.items())
    }
