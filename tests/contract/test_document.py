"""The OpenAPI document: valid, whole, and the same from the program and from the API."""

from __future__ import annotations

import json

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.api.endpoint import Access
from gateway.api.errors import BUG_TYPE, TYPES
from gateway.api.openapi import document
from gateway.api.server import endpoints
from gateway.cli.main import main

DOCUMENT = document(endpoints())
OPERATIONS = [
    pytest.param(path, method, operation, id=f"{method.upper()} {path}")
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]


def test_the_document_is_valid_openapi() -> None:
    errors = [
        f"{list(error.path)}: {error.message}" for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()
    ]
    assert errors == []


def test_every_route_is_in_the_document() -> None:
    described = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert described == {(endpoint.method, endpoint.path) for endpoint in endpoints()}


def test_every_time_has_its_format() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    named = {(name, field): form for name, schema in schemas.items() for field, form in schema.get("properties", {}).items()
             if field == "at" or field.endswith("_at")}  # fmt: skip
    assert len(named) > 25
    for where, form in named.items():
        assert (
            form["anyOf"][0]["format"] == "date-time" if "anyOf" in form else form["format"] == "date-time"
        ), where


def test_every_problem_type_that_a_route_can_raise_is_one_of_the_table() -> None:
    named = {type_ for endpoint in endpoints() for type_ in endpoint.problems}
    assert named <= set(TYPES)


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_answer_says_its_form_and_its_request_id(path: str, method: str, operation: dict) -> None:
    assert operation["summary"].endswith("."), "a sentence"
    for status, response in operation["responses"].items():
        assert "X-Request-Id" in response["headers"], status
        if int(status) >= 400:
            schema = response["content"]["application/problem+json"]["schema"]
            types = schema["properties"]["type"]["enum"]
            assert set(types) <= set(TYPES) | {BUG_TYPE}
            assert schema["properties"]["status"] == {"const": int(status)}
        if status in ("429", "503"):
            assert "Retry-After" in response["headers"]
    assert "500" in operation["responses"]


def test_every_route_with_a_key_says_what_becomes_of_a_wrong_one() -> None:
    for endpoint in endpoints():
        operation = DOCUMENT["paths"][endpoint.path][endpoint.method.lower()]
        statuses = set(operation["responses"])
        if endpoint.access is Access.PUBLIC:
            assert "security" not in operation
            assert not statuses & {"401", "403", "429"}
        else:
            assert operation["security"] == [{"key": []}]
            assert {"401", "403", "429", "503"} <= statuses


def test_the_program_prints_the_same_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["openapi"]) == 0
    assert json.loads(capsys.readouterr().out) == DOCUMENT
