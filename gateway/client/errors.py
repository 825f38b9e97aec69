"""What can go wrong between an app and the gateway: one exception class for each problem type of the API. Pure.

Owns the classes and the reading of `application/problem+json` (RFC 9457). Must not know which call it was. All are `ClientError`: what the
gateway said is a `Problem`, that it could not be asked is `Unreachable`, and an answer that nobody understands is `Garbled`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import msgspec


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong at one place of the request; `pointer` is RFC 6901, empty for the whole."""

    pointer: str
    detail: str


class ProblemDetails(msgspec.Struct, frozen=True):
    """The members of a problem, as they came."""

    type: str = "about:blank"
    title: str = ""
    status: int = 0
    detail: str = ""
    request_id: str = ""
    errors: tuple[FieldError, ...] = ()
    allowed: tuple[str, ...] = ()


class ClientError(Exception):
    """Base of all that a client raises on purpose.

    Attributes:
        request_id: what the gateway's log calls the request; empty when no answer came.
    """

    request_id: str

    def __init__(self, message: str, request_id: str = "") -> None:
        super().__init__(message)
        self.request_id = request_id

    def __reduce__(self) -> tuple[Any, ...]:
        """As what it was made of: task queues hand exceptions from process to process."""
        return type(self), (str(self), self.request_id)


class Unreachable(ClientError):
    """No answer came, however often it was asked. A POST may still have been done: the same idempotency key tells."""


class Garbled(ClientError):
    """An answer that is none of the gateway's: another server at this address, a proxy's page, or a newer API."""


class Problem(ClientError):
    """The gateway refused. `details` has all that it said.

    Attributes:
        errors: where in the request, and what would be right there.
        status: of HTTP.
        allowed: for `InvalidTransition`, the states that can be reached.
        retry_after_s: when it may be asked again, where the gateway said so.
    """

    type: ClassVar[str] = ""
    details: ProblemDetails
    retry_after_s: float | None

    def __init__(self, details: ProblemDetails, retry_after_s: float | None = None) -> None:
        said = details.detail or details.title or f"status {details.status}"
        super().__init__(
            f"{said} ({details.type}, request {details.request_id or 'unknown'})", details.request_id
        )
        self.details, self.retry_after_s = details, retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        """As what it was made of."""
        return type(self), (self.details, self.retry_after_s)

    @property
    def errors(self) -> tuple[FieldError, ...]:
        """Where in the request, and what would be right there."""
        return self.details.errors

    @property
    def status(self) -> int:
        """The status of HTTP."""
        return self.details.status

    @property
    def allowed(self) -> tuple[str, ...]:
        """The states that can be reached from here, for `InvalidTransition`."""
        return self.details.allowed


class Invalid(Problem):
    """The request cannot be understood, or breaks a rule of its fields; `errors` says which."""

    type: ClassVar[str] = "invalid"


class Unauthorized(Problem):
    """No key, or one that is unknown or revoked."""

    type: ClassVar[str] = "unauthorized"


class Forbidden(Problem):
    """The key lacks the scope, or the site is suspended."""

    type: ClassVar[str] = "forbidden"


class NotFound(Problem):
    """No such thing, or it is another site's."""

    type: ClassVar[str] = "not_found"


class Conflict(Problem):
    """It exists already, or changed meanwhile."""

    type: ClassVar[str] = "conflict"


class InvalidTransition(Problem):
    """Not possible in the state that it is in; `allowed` names the states that are."""

    type: ClassVar[str] = "invalid_transition"


class DomainUnverified(Problem):
    """The From address stands on a domain that is not verified."""

    type: ClassVar[str] = "domain_unverified"


class QuotaContacts(Problem):
    """The contact limit would be passed."""

    type: ClassVar[str] = "quota_contacts"


class QuotaMessages(Problem):
    """The message limit of the month would be passed."""

    type: ClassVar[str] = "quota_messages"


class Suppressed(Problem):
    """The recipient is suppressed."""

    type: ClassVar[str] = "suppressed"


class CampaignsDisabled(Problem):
    """Campaigns are not switched on for the site."""

    type: ClassVar[str] = "campaigns_disabled"


class ConsentMissing(Problem):
    """The consent statement is missing."""

    type: ClassVar[str] = "consent_missing"


class OutsideWindow(Problem):
    """Outside the days and hours in which the campaign may send."""

    type: ClassVar[str] = "outside_window"


class WhatsappWindowClosed(Problem):
    """The WhatsApp window is closed."""

    type: ClassVar[str] = "whatsapp_window_closed"


class IdempotencyMismatch(Problem):
    """The idempotency key belongs to another request."""

    type: ClassVar[str] = "idempotency_mismatch"


class RateLimited(Problem):
    """Too many requests, and more so than the client waits for."""

    type: ClassVar[str] = "rate_limited"


class Unavailable(Problem):
    """The gateway cannot take it now, for longer than the client waits; nothing was accepted."""

    type: ClassVar[str] = "unavailable"


class ServerFault(Problem):
    """An error on the gateway's side; its log has it under `request_id`."""

    type: ClassVar[str] = "about:blank"


_CLASSES: Final = (
    Invalid, Unauthorized, Forbidden, NotFound, Conflict, InvalidTransition, DomainUnverified, QuotaContacts, QuotaMessages,
    Suppressed, CampaignsDisabled, ConsentMissing, OutsideWindow, WhatsappWindowClosed, IdempotencyMismatch, RateLimited, Unavailable,
)  # fmt: skip
BY_TYPE: Final[dict[str, type[Problem]]] = {one.type: one for one in _CLASSES}
_DECODER: Final = msgspec.json.Decoder(ProblemDetails)


def problem_of(details: ProblemDetails, retry_after_s: float | None = None) -> Problem:
    """The exception for a problem; a type that this client does not know is a `Problem` (of a 5xx, a `ServerFault`)."""
    known = BY_TYPE.get(details.type, ServerFault if details.status >= 500 else Problem)
    return known(details, retry_after_s)


def read_problem(status: int, body: bytes, request_id: str, retry_after_s: float | None) -> ClientError:
    """The exception for an answer that is not a good one.

    What is no problem+json comes from another server: a proxy's 502 is `Unavailable` too, all else is `Garbled`.
    """
    try:
        details = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        details = None
    if details is None or not details.status:
        shown = body[:200].decode("utf-8", "replace")
        if status in (429, 502, 503, 504):
            kind = RateLimited if status == 429 else Unavailable
            return kind(ProblemDetails(kind.type, "", status, shown, request_id), retry_after_s)
        return Garbled(f"status {status}, and no problem that the gateway would tell: {shown!r}", request_id)
    if not details.request_id:
        details = msgspec.structs.replace(details, request_id=request_id)
    return problem_of(details, retry_after_s)
