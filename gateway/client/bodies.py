"""What an app sends: the bodies of the API's requests, as Structs. Pure.

Owns their fields; what is allowed in them says the gateway, whose answer points at what is wrong. What is left at its default is not sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

Stream = Literal["transactional", "marketing"]
Scope = Literal["all", "marketing"]


class Mailbox(msgspec.Struct, frozen=True, omit_defaults=True):
    """An address with a display name. Text such as `Acme <hello@acme.example>` does as well."""

    email: str
    name: str = ""


class Recipient(msgspec.Struct, frozen=True, omit_defaults=True):
    """One recipient with variables of its own, which win over the message's."""

    email: str
    name: str = ""
    variables: Mapping[str, Any] = {}


class Attachment(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file that comes along. With a `content_id` the HTML shows it, as `cid:…`."""

    filename: str
    content_type: str
    content: bytes
    content_id: str = ""


class NewMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"sender": "from"}):
    """A message to up to 1,000 recipients: its own subject, html and text, or a template's.

    With variables its own content is Liquid; without, it goes out as it stands. `send_at` has a time zone.
    """

    sender: str | Mailbox
    to: str | Recipient | Sequence[str | Recipient]
    subject: str | UnsetType = UNSET
    html: str = ""
    text: str = ""
    template: str | UnsetType = UNSET
    variables: Mapping[str, Any] = {}
    reply_to: str | Mailbox = ""
    attachments: Sequence[Attachment] = ()
    headers: Mapping[str, str] = {}
    stream: Stream = "transactional"
    send_at: datetime | UnsetType = UNSET
    expires_in_s: int | UnsetType = UNSET


class NewContact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A contact to make. `fields` are the site's own: names of lower case letters, digits and _."""

    email: str
    first_name: str = ""
    last_name: str = ""
    phone: str = ""
    tags: Sequence[str] = ()
    fields: Mapping[str, Any] = {}


class ContactChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is to be changed of a contact; what is left out stays. Of `fields` those that are given; one that is None goes (RFC 7396)."""

    email: str | UnsetType = UNSET
    first_name: str | UnsetType = UNSET
    last_name: str | UnsetType = UNSET
    phone: str | UnsetType = UNSET
    tags: Sequence[str] | UnsetType = UNSET
    fields: Mapping[str, Any] = {}


class NewTemplate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A template's content, with Liquid tags; at least one of html and text."""

    name: str
    subject: str
    html: str = ""
    text: str = ""


class NewBroadcast(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"sender": "from"}):
    """A broadcast to make: a template to a list."""

    name: str
    list: str
    template: str
    sender: str | Mailbox
    reply_to: str | Mailbox = ""
    expires_in_s: int | None = None


class BroadcastChange(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"sender": "from"}
):
    """What is to be changed of a draft; what is left out stays as it is."""

    name: str | UnsetType = UNSET
    list: str | UnsetType = UNSET
    template: str | UnsetType = UNSET
    sender: str | Mailbox | UnsetType = UNSET
    reply_to: str | Mailbox | UnsetType = UNSET
    expires_in_s: int | UnsetType = UNSET


class NewSuppression(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An address to suppress: for all mail, or for marketing."""

    email: str
    scope: Scope = "all"
    reason: str = "manual"
    evidence: str = ""
