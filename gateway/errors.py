"""Every exception that crosses a module's border, and the problem types of the control API.

Owns the words in which the gateway says what went wrong. A 4xx or 5xx of a receiver is not here: it is data, a
`Disposition`. Must not know HTTP: `api/errors.py` alone maps a problem's `type` to a status (RFC 9457).

A message says what was wrong, where, and what would be right, without bodies, secrets or full addresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar


class GatewayError(Exception):
    """Base of all errors that the gateway raises on purpose."""


class StoreUnavailable(GatewayError):
    """Postgres does not answer, or no connection came free in time: temporary, nothing was written."""


class ConfigError(GatewayError):
    """A configuration that stops the start: which file, which line, which key, and what would be right.

    Attributes:
        path: the file, or None when the value came from the environment.
        line: the line of the key (1-based), or None when the file has no such line.
        key: dotted name of the key (`dispatch.in_flight`) or of the environment variable; empty for a syntax error.
        problem: what is wrong, without its place.
        hint: what would be right, as a sentence; may be empty.
    """

    path: Path | None
    line: int | None
    key: str
    problem: str
    hint: str

    def __init__(
        self,
        problem: str,
        *,
        path: Path | None = None,
        line: int | None = None,
        key: str = "",
        hint: str = "",
        more: int = 0,
    ) -> None:
        """Say one mistake; `more`: how many others there are, which the same file may have."""
        self.path, self.line, self.key, self.problem, self.hint = path, line, key, problem, hint
        where = str(path) if path is not None else "environment"
        if line is not None:
            where = f"{where}:{line}"
        said = ": ".join(part for part in (where, key, problem) if part) + (f"; {hint}" if hint else "")
        super().__init__(f"{said} (and {more} more: gateway check-config lists them)" if more else said)

    @staticmethod
    def first_of(errors: Sequence[ConfigError]) -> ConfigError:
        """Return the first of some mistakes (at least one), with the number of the others."""
        first = errors[0]
        return ConfigError(
            first.problem,
            path=first.path,
            line=first.line,
            key=first.key,
            hint=first.hint,
            more=len(errors) - 1,
        )


class JournalError(GatewayError):
    """The journal cannot be written (disk full, file gone): sending must stop at once, loudly."""


class TemplateError(GatewayError):
    """A template that cannot be compiled or rendered within its limits; `part` is subject, html or text."""

    part: str
    line: int | None

    def __init__(self, problem: str, *, part: str, line: int | None = None) -> None:
        self.part, self.line = part, line
        where = part if line is None else f"{part}, line {line}"
        super().__init__(f"{where}: {problem}")


class KeySealError(GatewayError):
    """A sealed private key that does not open: wrong envelope key, wrong domain, or damaged bytes."""


class Problem(GatewayError):
    """A refusal that the control API shows its caller; `type` is the slug of the problem type in the API's contract."""

    type: ClassVar[str]


class Invalid(Problem):
    """The request cannot be understood or breaks a rule of its fields.

    Attributes:
        errors: pairs of JSON pointer (RFC 6901, empty for the whole document) and what would be right there.
    """

    type: ClassVar[str] = "invalid"
    errors: tuple[tuple[str, str], ...]

    def __init__(self, errors: Sequence[tuple[str, str]]) -> None:
        self.errors = tuple(errors)
        super().__init__(
            "; ".join(f"{pointer}: {detail}" if pointer else detail for pointer, detail in self.errors)
        )


class NotFound(Problem):
    """No such thing, or it belongs to another site: the two are not told apart."""

    type: ClassVar[str] = "not_found"


class Conflict(Problem):
    """The thing exists already, or changed since it was read."""

    type: ClassVar[str] = "conflict"


class InvalidTransition(Problem):
    """A change of state that the transition table does not have; names the ones it has."""

    type: ClassVar[str] = "invalid_transition"
    current: str
    wanted: str
    allowed: tuple[str, ...]

    def __init__(self, current: str, wanted: str, allowed: Sequence[str]) -> None:
        self.current, self.wanted, self.allowed = current, wanted, tuple(allowed)
        options = ", ".join(self.allowed) or "nothing (it has ended)"
        super().__init__(f"cannot go from {current} to {wanted}; from {current} it may go to {options}")


class Unauthorized(Problem):
    """No key, or one that is unknown or revoked."""

    type: ClassVar[str] = "unauthorized"


class Forbidden(Problem):
    """A known key that lacks the scope, or a suspended site."""

    type: ClassVar[str] = "forbidden"


class DomainUnverified(Problem):
    """The From address stands on a domain that the site has not verified."""

    type: ClassVar[str] = "domain_unverified"


class CampaignsDisabled(Problem):
    """Campaigns are not switched on for the site."""

    type: ClassVar[str] = "campaigns_disabled"


class QuotaContacts(Problem):
    """The site's contact limit would be passed."""

    type: ClassVar[str] = "quota_contacts"


class QuotaMessages(Problem):
    """The site's message limit of the month would be passed."""

    type: ClassVar[str] = "quota_messages"


class Suppressed(Problem):
    """The recipient is on a suppression list that holds for this stream."""

    type: ClassVar[str] = "suppressed"


class ConsentMissing(Problem):
    """An import or a launch without its consent statement."""

    type: ClassVar[str] = "consent_missing"


class OutsideWindow(Problem):
    """Now is outside the days and hours in which the campaign may send."""

    type: ClassVar[str] = "outside_window"


class WhatsappWindowClosed(Problem):
    """Free text to a WhatsApp contact more than 24 h after the last reply."""

    type: ClassVar[str] = "whatsapp_window_closed"


class IdempotencyMismatch(Problem):
    """An Idempotency-Key that was used before with another body."""

    type: ClassVar[str] = "idempotency_mismatch"


class RateLimited(Problem):
    """Too many requests for this key; `retry_after_s` says when the next one will be taken."""

    type: ClassVar[str] = "rate_limited"
    retry_after_s: float

    def __init__(self, retry_after_s: float, detail: str = "too many requests") -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"{detail}; try again in {retry_after_s:g} s")


class Unavailable(Problem):
    """The gateway cannot take this now (database away, pool exhausted, disk full); nothing was accepted."""

    type: ClassVar[str] = "unavailable"
    retry_after_s: float

    def __init__(self, retry_after_s: float, detail: str = "temporarily unavailable") -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"{detail}; try again in {retry_after_s:g} s")
