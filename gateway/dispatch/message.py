"""What all deliveries of one message share, made once from its row: content, compiled template, links, stencil, signers.

Owns the way from the row to a `Message`, and the names under which we send. Must not know deliveries, nor how long a message is kept
(`dispatch/content`).
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final

import msgspec

from gateway.campaigns.render import Template, compile_template
from gateway.campaigns.tracked import Plans, TrackedParts, mark, track_parts
from gateway.config import Config
from gateway.dispatch.signers import Signers
from gateway.errors import GatewayError, Invalid
from gateway.model.stream import Stream
from gateway.mta.attachment import unpack_attachments
from gateway.mta.body import PLAIN_LIMIT
from gateway.mta.keys import derive_key
from gateway.mta.list_headers import feedback_id
from gateway.mta.mime import MailContent, Stencil
from gateway.mta.own_headers import is_own
from gateway.mta.raw import RAW, RawStencil, unpack_raw
from gateway.mta.sign import Signer

_URL_ROOM: Final = 160
_FIELDS: Final = ("X-Gateway-Delivery",)
_MARKETING_FIELDS: Final = (*_FIELDS, "List-Unsubscribe", "List-Unsubscribe-Post")


class Unsendable(GatewayError):
    """A delivery that cannot be made into bytes. `for_good`: trying again cannot help."""

    def __init__(self, why: str, *, for_good: bool) -> None:
        super().__init__(why)
        self.for_good = for_good


class Names(msgspec.Struct, frozen=True):
    """Our own names in what we send. `public_base`, `track_base`: URLs with a slash at their end; the second may be empty."""

    bounce_domain: str
    message_id_domain: str
    sender_id: str
    public_base: str
    track_base: str


class Message(msgspec.Struct, frozen=True):
    """What all deliveries of one message share. `stencil` is None where each recipient's text is rendered whole."""

    content: MailContent
    stencil: Stencil | RawStencil | None
    template: Template | None
    boundary: str
    signers: tuple[Signer, ...]
    marketing: bool
    size_bytes: int
    plans: Plans | None
    tracked: TrackedParts | None


def names_of(config: Config) -> Names:
    """Our names as the config has them."""
    mail = config.mail
    return Names(
        mail.bounce_domain,
        mail.message_id_domain,
        mail.sender_id,
        f"{config.api.public_url.rstrip('/')}/",
        config.track.base,
    )


class Compiler:
    """Makes messages of their rows; immutable but for the signers it keeps."""

    def __init__(self, names: Names, master_key: bytes, signers: Signers) -> None:
        """Take our names, the envelope key, and who signs."""
        self._names, self._signers = names, signers
        self._boundary_key, self._mark_key = (
            derive_key(master_key, "boundary"),
            derive_key(master_key, "mark"),
        )

    def message(self, row: Mapping[str, Any]) -> Message:
        """Return the message of a row of `Queue.messages`.

        Raises:
            Unsendable: its domain is not verified, or its content cannot go into a message.
            TemplateError: it is no template.
            KeySealError: a key of its domain does not open.
        """
        if row["private_key_sealed"] is None:
            raise Unsendable("its sending domain is not verified", for_good=False)
        signers = self._signers.of(row)
        marketing = row["stream"] == Stream.MARKETING
        if row["template"] == RAW:
            return self._raw(row, signers, marketing=marketing)
        plans = None
        html, text = row["html"], row["text"]
        if marketing and self._names.track_base:
            secret = _secret(self._mark_key, row["id"])
            plans = mark(html, text, liquid=bool(row["template"]), secret=secret)
            html, text = plans.html.source, plans.text.source
        template = compile_template(row["subject"], html, text) if row["template"] else None
        parts: dict[str, tuple[str | int, ...]] | None = {
            "subject": (row["subject"],),
            "text": (text,),
            "html": (html,),
        }
        rooms: list[int] = []
        if template is not None:
            parts = dict(template.pieces.parts) if template.pieces is not None else None
            rooms = [PLAIN_LIMIT] * len(template.pieces.slots) if template.pieces is not None else []
        tracked = None
        if plans is not None and parts is not None:
            tracked = track_parts(plans, parts["html"], parts["text"], len(rooms))
            parts |= {"html": tracked.html.pieces, "text": tracked.text.pieces}
            rooms += [_URL_ROOM] * tracked.slots
        content = self._content(row, marketing=marketing)
        # Nobody who writes content can guess the boundary, so none can write it into a part.
        boundary = f"=_{_secret(self._boundary_key, row['id'])}"
        stencil = None
        if parts is not None:
            try:
                stencil = Stencil(
                    msgspec.structs.replace(content, **{name: _plain(part) for name, part in parts.items()}),
                    boundary=boundary,
                    rooms=rooms,
                )
            except Invalid as error:
                raise Unsendable(str(error), for_good=True) from error
        return Message(
            content=content, stencil=stencil, template=template, boundary=boundary, signers=signers, marketing=marketing,
            size_bytes=_size_bytes(content, row), plans=plans, tracked=tracked,
        )  # fmt: skip

    def _raw(self, row: Mapping[str, Any], signers: tuple[Signer, ...], *, marketing: bool) -> Message:
        """A message that came whole over SMTP: nothing is rendered, nothing tracked."""
        try:
            whole = unpack_raw(row["attachments"])
            stencil = RawStencil(
                whole, headers=[self._feedback_id(row)], fields=_MARKETING_FIELDS if marketing else _FIELDS
            )
        except Invalid as error:
            raise Unsendable(str(error), for_good=True) from error
        return Message(
            content=MailContent(sender=row["sender"], subject=row["subject"]), stencil=stencil, template=None, boundary="",
            signers=signers, marketing=marketing, size_bytes=2_000 + 2 * len(whole), plans=None, tracked=None,
        )  # fmt: skip

    def _feedback_id(self, row: Mapping[str, Any]) -> tuple[str, str]:
        return feedback_id(
            row["broadcast_id"] or 0, row["site_id"], Stream(row["stream"]), self._names.sender_id
        )

    def _content(self, row: Mapping[str, Any], *, marketing: bool) -> MailContent:
        """All but text and HTML."""
        headers = msgspec.json.decode(row["headers"] or "{}", type=dict[str, str])
        return MailContent(
            sender=row["sender"],
            subject=row["subject"],
            reply_to=row["reply_to"],
            # One that was accepted before its name became ours is left out: what is accepted leaves.
            headers=tuple((name, value) for name, value in headers.items() if not is_own(name)),
            own=(self._feedback_id(row),),
            fields=_MARKETING_FIELDS if marketing else _FIELDS,
            attachments=unpack_attachments(row["attachments"]),
        )  # fmt: skip


def _secret(key: bytes, message_id: int) -> str:
    """What nobody can guess, the same for each look at a message."""
    return blake2b(message_id.to_bytes(8), key=key, digest_size=12).hexdigest()


def _size_bytes(content: MailContent, row: Mapping[str, Any]) -> int:
    """About what a message takes in memory: its text as it came, in pieces and encoded; its files in base64."""
    text = len(row["subject"]) + len(row["html"]) + len(row["text"])
    return 2_000 + 4 * text + sum(2 * len(file.data) for file in content.attachments)


def _plain(part: tuple[str | int, ...]) -> str | tuple[str | int, ...]:
    """A part without slots as text."""
    return "".join([str(piece) for piece in part]) if all(isinstance(piece, str) for piece in part) else part
