"""Problems as exceptions: one class for each type that the API has."""

from __future__ import annotations

import pickle

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


@pytest.mark.parametrize(
    "error",
    [
        errors.Invalid(
            errors.ProblemDetails(
                "invalid", "t", 422, "d", "r1", (errors.FieldError("/to/0", "no address"),)
            ),
            2.0,
        ),
        errors.Unreachable("no answer", "r2"),
    ],
)
def test_an_error_goes_from_process_to_process(error: errors.ClientError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.request_id) == (type(error), str(error), error.request_id)
    if isinstance(error, errors.Problem):
        assert (again.errors, again.retry_after_s) == (error.errors, error.retry_after_s)
