"""What an app submits as a message, and the checks that make a `Submission` of it.

Owns the body of `POST /v1/messages`. Must not know HTTP or the database: domain ids and templates are handed in. Everything that
is refused here is refused with a pointer into the item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.api.decode import escape
from gateway.api.described import TemplateId
from gateway.api.senders import Mailbox, Sender, read_mailbox
from gateway.api.templates import Body, check_content
from gateway.config import ExpiryConfig
from gateway.errors import Invalid
from gateway.model.address import AddressError, parse
from gateway.model.ids import Prefix, decode
from gateway.model.stream import Stream
from gateway.mta.attachment import Attachment, pack_attachments
from gateway.mta.header import split_mailbox
from gateway.mta.mime import MailContent, Stencil, build
from gateway.store.intake import Deliveries, Submission

RECIPIENTS_LIMIT: Final = 1_000
ITEMS_LIMIT: Final = 1_000
REQUEST_RECIPIENTS_LIMIT: Final = 10_000
"""Recipients of all items of one request together: they are one transaction."""

INLINE: Final = "inline"
"""In place of a template's name: own content with variables."""

_VARIABLES_LIMIT: Final = 65_536
_AHEAD_LIMIT: Final = timedelta(days=90)
_HEADERS_LIMIT: Final = 50
_ATTACHMENTS_LIMIT: Final = 20
_ATTACHED_LIMIT_BYTES: Final = 10 * 2**20
_ANY_DATE: Final = datetime(2000, 1, 1, tzinfo=UTC)

Variables = dict[str, Any]
HeaderValue = Annotated[str, Meta(max_length=10_000)]


class RecipientBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """One recipient; its variables win over the item's."""

    email: str
    name: str = ""
    variables: Variables = {}


Recipients = Annotated[list[str | RecipientBody], Meta(min_length=1, max_length=RECIPIENTS_LIMIT)]


class AttachmentBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file that comes along. With a `content_id` it is shown in the HTML, where `cid:…` names it."""

    filename: str
    content_type: str
    content: bytes
    """In base64."""
    content_id: str = ""


class MessageBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"sender": "from"}):
    """A message: its own content, or a template. Own content goes out as it stands, or, with variables, as Liquid."""

    sender: str | Mailbox
    to: str | RecipientBody | Recipients
    subject: Annotated[str, Meta(min_length=1, max_length=2_000)] | UnsetType = UNSET
    html: Body = ""
    text: Body = ""
    template: TemplateId | UnsetType = UNSET
    """Id of a template, instead of subject, html and text."""
    variables: Variables = {}
    reply_to: str | Mailbox = ""
    attachments: Annotated[list[AttachmentBody], Meta(max_length=_ATTACHMENTS_LIMIT)] = []
    headers: Annotated[dict[str, HeaderValue], Meta(max_length=_HEADERS_LIMIT)] = {}
    """Further header fields; none of the gateway's own (`mta/own_headers`)."""
    stream: Stream = Stream.TRANSACTIONAL
    send_at: Annotated[datetime, Meta(tz=True)] | UnsetType = UNSET
    expires_in_s: Annotated[int, Meta(ge=60, le=2_592_000)] | UnsetType = UNSET


class Content(msgspec.Struct, frozen=True):
    """A message's words. `template` names where they come from; empty: they go out as they stand, without Liquid."""

    subject: str
    html: str
    text: str
    template: str = ""


class Checked(msgspec.Struct, frozen=True):
    """An item of which all is known but what the database has to say."""

    item: MessageBody
    sender: Sender
    template_id: int | None
    deliveries: Deliveries


def check(item: MessageBody, now: datetime, expiry: ExpiryConfig) -> Checked:
    """Check what can be checked without the database.

    Raises:
        Invalid: with pointers into the item; all wrong recipients are named at once.
    """
    sender = read_mailbox(item.sender, "/from")
    if item.template is UNSET:
        if item.subject is UNSET:
            raise Invalid([("/subject", "required, unless there is a template")])
        check_content(item.subject, item.html, item.text, liquid=has_variables(item))
        template_id = None
    else:
        if item.subject is not UNSET or item.html or item.text:
            raise Invalid([("/template", "a template brings subject, html and text; expected it or them")])
        template_id = decode(Prefix.TEMPLATE, item.template, "/template")
    _check_headers(item.headers)
    if item.attachments:
        _check_attachments(item.attachments)
    due_at, expires_at = _times(item, now, expiry)
    given = item.to if isinstance(item.to, list) else [item.to]
    recipients, domains = _addresses(given, "/to" if item.to is not given else None)
    shared = _encode(item.variables, "/variables") if item.variables else None
    variables = [
        shared
        if isinstance(one, str) or not (one.variables or one.name)
        else _merged(item.variables, one, index)
        for index, one in enumerate(given)
    ]
    return Checked(item, sender, template_id, Deliveries(recipients, domains, variables, due_at, expires_at))


def has_variables(item: MessageBody) -> bool:
    """Whether an item's content is to be rendered: it, or one of its recipients, has variables."""
    given = item.to if isinstance(item.to, list) else [item.to]
    return bool(item.variables) or any(not isinstance(one, str) and one.variables for one in given)


def submission(checked: Checked, content: Content, domain_id: int) -> Submission:
    """Put together what is accepted.

    Raises:
        Invalid: the Reply-To is no address.
    """
    item = checked.item
    return Submission(
        domain_id=domain_id,
        stream=item.stream,
        sender=checked.sender.mailbox,
        subject=content.subject,
        deliveries=checked.deliveries,
        html=content.html,
        text=content.text,
        reply_to=read_mailbox(item.reply_to, "/reply_to").mailbox if item.reply_to else "",
        headers=msgspec.json.encode(item.headers).decode() if item.headers else "{}",
        template=content.template,
        attachments=pack_attachments(_attachments(item.attachments)) if item.attachments else b"",
    )


def _attachments(given: Sequence[AttachmentBody]) -> tuple[Attachment, ...]:
    return tuple(Attachment(one.filename, one.content_type, one.content, one.content_id) for one in given)


def _check_attachments(given: Sequence[AttachmentBody]) -> None:
    if sum(len(one.content) for one in given) > _ATTACHED_LIMIT_BYTES:
        raise Invalid([("/attachments", f"at most {_ATTACHED_LIMIT_BYTES} bytes in all")])
    # Built once for nothing, as headers are: it names what cannot go into a message.
    Stencil(
        MailContent(sender="a@a.example", subject="", text="-", attachments=_attachments(given)), boundary="-"
    )


def _addresses(given: Sequence[str | RecipientBody], single: str | None) -> tuple[list[str], list[str]]:
    recipients: list[str] = []
    domains: list[str] = []
    wrong: list[tuple[str, str]] = []
    for index, one in enumerate(given):
        text = one if isinstance(one, str) else one.email
        try:
            address = parse(text)
        except AddressError as error:
            at = single or f"/to/{index}"
            bare = isinstance(one, str)
            hint = "; a display name goes into an object's name" if bare and split_mailbox(text)[0] else ""
            wrong.append((at if bare else f"{at}/email", f"{error}{hint}"))
            continue
        recipients.append(address.wire)
        domains.append(address.domain)
    if wrong:
        raise Invalid(wrong)
    return recipients, domains


def _merged(shared: Variables, one: RecipientBody, index: int) -> str:
    named = {"name": one.name} if one.name else {}
    return _encode({**shared, **named, **one.variables}, f"/to/{index}/variables")


def _encode(variables: Variables, pointer: str) -> str:
    encoded = msgspec.json.encode(variables)
    if len(encoded) > _VARIABLES_LIMIT:
        raise Invalid([(pointer, f"{len(encoded)} bytes as JSON; at most {_VARIABLES_LIMIT}")])
    return encoded.decode()


def _check_headers(headers: Mapping[str, str]) -> None:
    """Build a message of nothing but these fields: what cannot be built is refused now, not at the first attempt."""
    for name, value in headers.items():
        trial = MailContent(sender="a@a.example", subject="", text="-", headers=((name, value),))
        try:
            build(trial, to="a@a.example", message_id="a@a.example", date=_ANY_DATE, boundary="-")
        except Invalid as error:
            raise Invalid([(f"/headers/{escape(name)}", detail) for _, detail in error.errors]) from error


def _times(item: MessageBody, now: datetime, expiry: ExpiryConfig) -> tuple[datetime, datetime]:
    due_at = now
    if item.send_at is not UNSET:
        if item.send_at > now + _AHEAD_LIMIT:
            raise Invalid([("/send_at", f"more than {_AHEAD_LIMIT.days} days ahead")])
        due_at = max(now, item.send_at)
    lasts_s = expiry.transactional_s if item.stream is Stream.TRANSACTIONAL else expiry.marketing_s
    if item.expires_in_s is not UNSET:
        lasts_s = item.expires_in_s
    return due_at, due_at + timedelta(seconds=lasts_s)
