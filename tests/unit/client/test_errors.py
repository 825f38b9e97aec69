"""Problems as exceptions: one class for each type that the API has."""

from __future__ import annotations

import msgspec
import pytest

from gateway.api.errors import TYPES, FieldError, ProblemBody
from gateway.client import errors


def test_every_problem_type_of_the_api_has_its_class() -> None:
    assert set(TYPES) <= set(errors.BY_TYPE)


@pytest.mark.parametrize("type_", sorted(TYPES))
def test_a_problem_is_read_as_it_is_written(type_: str) -> None:
    body = ProblemBody(
        type_,
        "T",
        TYPES[type_].status,
        "what is wrong",
        "r7",
        (FieldError("/to/1", "no address"),),
        ("paused",),
    )
    read = errors.read_problem(TYPES[type_].status, msgspec.json.encode(body), "", 2.0)
    assert isinstance(read, errors.Problem)
    assert type(read) is errors.BY_TYPE[type_]
    assert (read.status, read.request_id, read.retry_after_s) == (TYPES[type_].status, "r7", 2.0)
    assert (read.errors[0].pointer, read.errors[0].detail, read.allowed) == (
        "/to/1",
        "no address",
        ("paused",),
    )
    assert str(read) == f"what is wrong ({type_}, request r7)"


def test_a_type_of_a_newer_gateway_is_a_problem_still() -> None:
    read = errors.read_problem(
        409, b'{"type": "brand_new", "title": "t", "status": 409, "detail": "d"}', "r1", None
    )
    assert (type(read), read.request_id) == (errors.Problem, "r1")
    read = errors.read_problem(
        500, b'{"type": "about:blank", "title": "t", "status": 500, "detail": "d"}', "", None
    )
    assert type(read) is errors.ServerFault


@pytest.mark.parametrize(
    ("status", "kind"),
    [(502, errors.Unavailable), (429, errors.RateLimited), (404, errors.Garbled), (302, errors.Garbled)],
)
def test_an_answer_of_somebody_else_is_told_from_the_gateways(status: int, kind: type[Exception]) -> None:
    for body in (b"<html>nginx</html>", b"", b"{}", b"\xff"):
        assert type(errors.read_problem(status, body, "", None)) is kind
