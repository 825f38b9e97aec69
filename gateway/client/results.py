"""What the gateway answers, as Structs. Pure.

Owns their fields. States, codes and kinds are text, and unknown fields are passed over: a newer gateway may say more than this client knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from gateway.client.errors import Problem, ProblemDetails, problem_of


class AcceptedDelivery(msgspec.Struct, frozen=True):
    """A delivery that was accepted; a suppressed one will not be sent."""

    id: str
    to: str
    state: str


class Accepted(msgspec.Struct, frozen=True):
    """A message that was accepted: it is on disk."""

    id: str
    deliveries: list[AcceptedDelivery]


class Item(msgspec.Struct, frozen=True):
    """What became of one message of several: id and deliveries, or an error."""

    id: str = ""
    deliveries: list[AcceptedDelivery] = []
    error: ProblemDetails | None = None

    @property
    def problem(self) -> Problem | None:
        """The error as an exception, to be raised or looked at; its pointers go into the whole request."""
        return None if self.error is None else problem_of(self.error)


class Event(msgspec.Struct, frozen=True):
    """What happened to a delivery. `attempt`: how many had counted by then."""

    kind: str
    at: datetime
    attempt: int = 0
    code: int | None = None
    enhanced: str | None = None
    reply: str | None = None
    bounce_class: str | None = None


class Attempt(msgspec.Struct, frozen=True):
    """One try of a delivery, and what the receiver said."""

    number: int
    at: datetime
    outcome: str
    code: int | None = None
    enhanced: str | None = None
    reply: str | None = None
    bounce_class: str | None = None


class Delivery(msgspec.Struct, frozen=True):
    """A message to one recipient, as it stands."""

    id: str
    to: str
    state: str
    attempts: list[Attempt] = []
    code: int | None = None
    enhanced: str | None = None
    reply: str | None = None
    bounce_class: str | None = None
    next_at: datetime | None = None
    expires_at: datetime | None = None
    ended_at: datetime | None = None
    events: list[Event] = []


class Message(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """A message and its first 1,024 deliveries; `state` is that of all of them, or `mixed`, and `states` counts them."""

    id: str
    state: str
    states: Mapping[str, int]
    stream: str
    sender: str
    subject: str
    template: str
    broadcast: str | None
    created_at: datetime
    deliveries: list[Delivery]
    has_more: bool = False
    has_more_events: bool = False


class MessageSummary(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """A message on a list: its first recipient, how many there are, and that one's state (None: a broadcast's)."""

    id: str
    stream: str
    sender: str
    subject: str
    template: str
    broadcast: str | None
    to: str | None
    recipients: int | None
    state: str | None
    created_at: datetime


class Reason(msgspec.Struct, frozen=True):
    """One thing that holds a delivery, or its end; `release` says what would let it go on."""

    code: str
    text: str
    release: str = ""
    since: datetime | None = None
    until: datetime | None = None
    reply: str | None = None
    bounce_class: str | None = None
    rate_per_s: float | None = None
    ahead: int | None = None
    eta_s: float | None = None


class Why(msgspec.Struct, frozen=True):
    """Why a delivery is where it is: the first of `reasons` decides, the others would hold it next."""

    id: str
    to: str
    state: str
    expires_at: datetime | None
    reasons: list[Reason]


class Broadcast(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """A broadcast; `actions` are the ones that its state allows, `detail` says why it failed."""

    id: str
    name: str
    state: str
    paused_by: str
    list: str
    template: str
    sender: str
    reply_to: str
    expires_in_s: int
    message: str | None
    actions: tuple[str, ...]
    detail: str
    created_at: datetime
    scheduled_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None


class BroadcastStats(msgspec.Struct, frozen=True):
    """The books of a broadcast: `accepted` is the sum of `states`, and grows until it is `expanded`."""

    accepted: int
    expanded: bool
    state: str
    states: Mapping[str, int]


class BroadcastDelivery(msgspec.Struct, frozen=True):
    """A delivery of a broadcast as it stands, with what was said last."""

    id: str
    to: str
    state: str
    attempts: int
    code: int | None
    enhanced: str | None
    reply: str | None
    bounce_class: str | None
    accepted_at: datetime
    next_at: datetime | None
    expires_at: datetime | None
    ended_at: datetime | None


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at before a launch; what is not `required` keeps nothing from being sent."""

    name: str
    passed: bool
    required: bool
    detail: str


class Estimate(msgspec.Struct, frozen=True):
    """Whom a broadcast would reach now: of `audience` members all but the `excluded` (by why). `ready`: it can be sent."""

    audience: int
    recipients: int
    excluded: Mapping[str, int]
    ready: bool
    checks: list[Check]


class Contact(msgspec.Struct, frozen=True):
    """A contact."""

    id: str
    email: str
    first_name: str
    last_name: str
    phone: str
    tags: list[str]
    fields: Mapping[str, Any]
    source: str
    created_at: datetime
    updated_at: datetime


class ContactList(msgspec.Struct, frozen=True):
    """A list and the number of its members."""

    id: str
    name: str
    members: int
    created_at: datetime


class Import(msgspec.Struct, frozen=True):
    """An import. `rows` are the file's: each was created, merged or refused."""

    id: str
    list: str | None
    status: str
    rows: int
    created: int
    merged: int
    refused: int
    detail: str
    created_at: datetime
    ended_at: datetime | None


class RowError(msgspec.Struct, frozen=True):
    """Why a row of an import was refused; lines count from 1, with the header."""

    line: int
    column: str
    reason: str
    value: str


class Template(msgspec.Struct, frozen=True):
    """A template in its present version."""

    id: str
    name: str
    version: int
    subject: str
    html: str
    text: str
    created_at: datetime
    updated_at: datetime


class Rendered(msgspec.Struct, frozen=True):
    """What one recipient would get."""

    subject: str
    html: str
    text: str


class SuppressionImport(msgspec.Struct, frozen=True):
    """What became of a file: its `rows` were added, known already, or refused; `errors` says why, of the first 100."""

    rows: int
    added: int
    known: int
    refused: int
    errors: list[RowError]


class Suppression(msgspec.Struct, frozen=True):
    """An address that is suppressed, for all mail or for marketing."""

    email: str
    scope: str
    reason: str
    evidence: str
    delivery: str | None
    created_at: datetime


class Membership(msgspec.Struct, frozen=True):
    """A list that a contact is on."""

    list: str
    name: str
    added_at: datetime


class ContactExport(msgspec.Struct, frozen=True):
    """All that is kept of a contact, but what was sent to it."""

    contact: Contact
    lists: list[Membership]
    suppressions: list[Suppression]


class Sent(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """One delivery to a contact. `subject`: empty once the content is erased."""

    id: str
    message: str
    broadcast: str | None
    stream: str
    sender: str
    subject: str
    state: str
    accepted_at: datetime
    ended_at: datetime | None


class Erasure(msgspec.Struct, frozen=True):
    """An erasure, `running` or `completed`; whose it is, is forgotten with it. `deliveries`: how many went to that address so far."""

    id: str
    state: str
    deliveries: int
    created_at: datetime
    ended_at: datetime | None
