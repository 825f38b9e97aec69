"""Domain errors as problem+json (RFC 9457): the one place that knows which error is which status. Pure.

Owns the table of problem types and the form of the answer. Must not know a resource. What is no `Problem` and no outage is a
bug: it is logged with its trace and answered without it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.errors import GatewayError, Invalid, InvalidTransition, Problem, StoreUnavailable

PROBLEM_JSON: Final = "application/problem+json"
BUG_TYPE: Final = "about:blank"
"""The type of what has no type: an error that nobody foresaw, or a status that says it all (RFC 9457 §4.2.1)."""


class Malformed(Invalid):
    """The body is not what its content type says, and so nothing in it can be pointed at."""


class TooLarge(Invalid):
    """The body is above the limit; it was not read."""


class ProblemType(msgspec.Struct, frozen=True):
    """A line of the table: the status that goes with a type, and its title."""

    status: int
    title: str


TYPES: Final[dict[str, ProblemType]] = {
    "invalid": ProblemType(422, "The request is not valid"),
    "unauthorized": ProblemType(401, "A valid API key is needed"),
    "forbidden": ProblemType(403, "The API key does not allow this"),
    "not_found": ProblemType(404, "Not found"),
    "conflict": ProblemType(409, "Conflict with what is there"),
    "invalid_transition": ProblemType(409, "Not possible in this state"),
    "domain_unverified": ProblemType(403, "The sending domain is not verified"),
    "quota_contacts": ProblemType(403, "The contact limit would be passed"),
    "quota_messages": ProblemType(403, "The message limit of the month would be passed"),
    "suppressed": ProblemType(422, "The recipient is suppressed"),
    "campaigns_disabled": ProblemType(403, "Campaigns are not switched on for this site"),
    "consent_missing": ProblemType(422, "The consent statement is missing"),
    "outside_window": ProblemType(409, "Outside the sending window"),
    "whatsapp_window_closed": ProblemType(409, "The WhatsApp window is closed"),
    "idempotency_mismatch": ProblemType(422, "The Idempotency-Key belongs to another request"),
    "rate_limited": ProblemType(429, "Too many requests"),
    "unavailable": ProblemType(503, "Temporarily unavailable"),
}


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong at one place of the body; `pointer` is RFC 6901, empty for the whole."""

    pointer: str
    detail: str


class ProblemBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """The members of the answer."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str = ""
    errors: tuple[FieldError, ...] = ()
    allowed: tuple[str, ...] = ()
    """For `invalid_transition`: the states that can be reached from here."""


class Answer(msgspec.Struct, frozen=True):
    """A problem, ready to be sent."""

    status: int
    body: bytes
    retry_after_s: float | None = None


def describe(error: GatewayError, request_id: str = "", *, base: str = "") -> ProblemBody:
    """Put an error into the form of the contract; `base` is put before its pointers."""
    if not isinstance(error, Problem):
        if isinstance(error, StoreUnavailable):
            return _body("unavailable", "the database does not answer; nothing was changed", request_id)
        return bug(request_id)
    status = 400 if isinstance(error, Malformed) else 413 if isinstance(error, TooLarge) else None
    errors = (
        tuple(FieldError(base + pointer, detail) for pointer, detail in error.errors)
        if isinstance(error, Invalid)
        else ()
    )
    allowed = error.allowed if isinstance(error, InvalidTransition) else ()
    return _body(error.type, str(error), request_id, errors=errors, allowed=allowed, status=status)


def answer(error: GatewayError, request_id: str) -> Answer:
    """Make the answer to a request that failed."""
    body = describe(error, request_id)
    retry = getattr(error, "retry_after_s", 1.0 if isinstance(error, StoreUnavailable) else None)
    return Answer(body.status, msgspec.json.encode(body), retry)


def bug(request_id: str) -> ProblemBody:
    """What is said of an error that nobody foresaw: nothing."""
    return ProblemBody(
        BUG_TYPE, "Internal Server Error", 500, "an error on our side; it has been logged", request_id
    )


def _body(
    type_: str,
    detail: str,
    request_id: str,
    *,
    errors: tuple[FieldError, ...] = (),
    allowed: tuple[str, ...] = (),
    status: int | None = None,
) -> ProblemBody:
    known = TYPES[type_]
    return ProblemBody(type_, known.title, status or known.status, detail, request_id, errors, allowed)
