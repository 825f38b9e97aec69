"""From a message and a delivery to the bytes that go on the wire: render, build, sign.

Owns the cache of messages (compiled template, sender, signer), so that what is the same for all recipients is done once. All
attempts of a delivery give the same bytes: date, Message-ID, boundary and signature time come from its acceptance. The work
is synchronous on purpose: whatever crashes here is the delivery the journal named last.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.campaigns.links import LinkPlan, compile_links
from gateway.campaigns.render import Rendered, Template, compile_template
from gateway.campaigns.tracked import Tracked, Urls, shown_blocks, shown_places, spliced, track
from gateway.campaigns.tracking import click_token, open_token
from gateway.campaigns.unsubscribe import OptOut, SealRing
from gateway.config import Config, MailConfig
from gateway.errors import ConfigError, GatewayError, Invalid, KeySealError, TemplateError
from gateway.model.delivery import Leased
from gateway.model.ids import encode
from gateway.model.stream import Stream
from gateway.model.token import Purpose, day_of
from gateway.mta.body import PLAIN_LIMIT
from gateway.mta.keys import derive_key, derive_ring, unseal
from gateway.mta.list_headers import feedback_id
from gateway.mta.mime import Filled, MailContent, Stencil, dot_stuff, unpack_attachments, unsubscribe_value
from gateway.mta.raw import RAW, RawStencil, unpack_raw
from gateway.mta.sign import Algorithm, Signer
from gateway.mta.verp import local_part
from gateway.mta.wire import Mail

CACHED_MESSAGES: Final = 2_000
CACHED_BYTES: Final = 48 * 2**20
CACHED_SIGNERS: Final = 5_000
_DAY_S: Final = 86_400
_NO_VALUES: Final[list[str]] = []
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
    plan: LinkPlan | None
    tracked: Tracked | None


class _FurtherKey(msgspec.Struct, frozen=True):
    """A key that signs beside the domain's first, as the query gives it; `sealed` in base64."""

    selector: str
    algorithm: Algorithm
    sealed: bytes


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


def platform_signer(config: MailConfig) -> Signer | None:
    """The signer of our own domain, if the config names one.

    Raises:
        ConfigError: its key cannot be read or is none.
    """
    if not config.platform_domain:
        return None
    key = "mail.platform_key_file"
    try:
        pem = Path(config.platform_key_file).read_bytes()
        return Signer(config.platform_domain, config.platform_selector, pem)
    except OSError as error:
        raise ConfigError(
            f"{config.platform_key_file or 'no file'}: {error.strerror}", key=key, hint="a private key in PEM"
        ) from error
    except ValueError as error:
        raise ConfigError(str(error), key=key, hint="an RSA key of at least 2048 bits in PEM") from error


class Contents:
    """The messages at hand. `missing` says which to load, `add` takes their rows, `make` gives the bytes."""

    # Mutable on purpose: two bounded caches.
    def __init__(self, names: Names, master_key: bytes, platform: Signer | None = None) -> None:
        """Take our names, the envelope key, and the signer of our own domain where every mail gets its signature, too."""
        self._names, self._master_key = names, master_key
        self._platform = platform
        self._verp = derive_ring(master_key, Purpose.VERP)
        self._click, self._open = (
            derive_ring(master_key, Purpose.CLICK),
            derive_ring(master_key, Purpose.OPEN),
        )
        self._unsubscribe = SealRing(derive_ring(master_key, Purpose.UNSUBSCRIBE))
        self._boundary_key = derive_key(master_key, "boundary")
        self._messages: OrderedDict[int, Message | Unsendable] = OrderedDict()
        self._signers: OrderedDict[tuple[str, str], Signer] = OrderedDict()

    def missing(self, message_ids: set[int]) -> list[int]:
        """Those of the messages that must be loaded first; the others count as used just now."""
        for message_id in message_ids & self._messages.keys():
            self._messages.move_to_end(message_id)
        return list(message_ids - self._messages.keys())

    def add(self, asked: Sequence[int], rows: Sequence[Mapping[str, Any]]) -> None:
        """Take loaded rows; one that was asked for and did not come is unsendable. Evicts the oldest beyond the bound."""
        found = {row["id"]: row for row in rows}
        for message_id in asked:
            row = found.get(message_id)
            try:
                self._messages[message_id] = (
                    self._compile(row) if row else Unsendable("its message is gone", for_good=True)
                )
            except Unsendable as error:
                self._messages[message_id] = error
            except (TemplateError, KeySealError) as error:
                self._messages[message_id] = Unsendable(str(error), for_good=isinstance(error, TemplateError))

    def trim(self) -> None:
        """Drop the least used messages beyond the bounds, and those that a later look may mend. Call it before more are added."""
        for message_id in [
            i for i, m in self._messages.items() if isinstance(m, Unsendable) and not m.for_good
        ]:
            del self._messages[message_id]
        kept_bytes = sum(m.size_bytes for m in self._messages.values() if isinstance(m, Message))
        while len(self._messages) > CACHED_MESSAGES or (
            kept_bytes > CACHED_BYTES and len(self._messages) > 1
        ):
            _, gone = self._messages.popitem(last=False)
            kept_bytes -= gone.size_bytes if isinstance(gone, Message) else 0
        while len(self._signers) > CACHED_SIGNERS:
            self._signers.popitem(last=False)

    def make(self, delivery: Leased) -> Mail:
        """Render, build, sign and stuff one delivery.

        Raises:
            Unsendable: with the reason.
        """
        message = self._messages.get(delivery.message_id) or Unsendable(
            "its message was not loaded", for_good=False
        )
        if isinstance(message, Unsendable):
            raise message
        try:
            filled = self._fill(message, delivery)
        except GatewayError as error:
            raise Unsendable(str(error), for_good=True) from error
        timestamp = int(delivery.accepted_at.timestamp())
        expires = int(delivery.expires_at.timestamp()) + _DAY_S
        signatures = [
            signer.sign_form(filled.form, timestamp=timestamp, expires=expires) for signer in message.signers
        ]
        return Mail(
            sender=f"{local_part(self._verp, delivery.id, delivery.accepted_at)}@{self._names.bounce_domain}",
            recipient=delivery.recipient,
            content=dot_stuff(b"".join([*signatures, filled.message])),
        )

    def _fill(self, message: Message, delivery: Leased) -> Filled:
        stencil, values = message.stencil, _NO_VALUES
        urls = self._urls(delivery) if message.plan is not None else None
        if (template := message.template) is not None:
            variables = msgspec.json.decode(delivery.variables) if delivery.variables else {}
            found = template.values(variables) if stencil is not None else None
            if (
                found is None
            ):  # the engine's alone: nothing is shared between recipients but the compiled template
                stencil = self._one_off(message, template.render(variables), urls)
            else:
                values = found
                if urls is not None and message.plan is not None:
                    values = shown_blocks(message.plan, values, urls)
        assert stencil is not None
        if urls is not None and stencil is message.stencil and message.tracked is not None:
            values = values + shown_places(message.tracked, values, urls)
        fields = [str(delivery.id)]
        if message.marketing:
            token = self._unsubscribe.seal(
                day_of(delivery.accepted_at), OptOut(delivery.site_id, 0, delivery.id, delivery.recipient)
            )
            fields += [unsubscribe_value(f"{self._names.public_base}u/{token}"), "List-Unsubscribe=One-Click"]
        return stencil.fill(
            to=delivery.recipient,
            date=delivery.accepted_at,
            message_id=f"{encode('dlv', delivery.id)}@{self._names.message_id_domain}",
            values=values,
            fields=fields,
        )

    def _urls(self, delivery: Leased) -> Urls:
        day, base = day_of(delivery.accepted_at), self._names.track_base
        return Urls(
            click=lambda link, destination: (
                f"{base}c/{click_token(self._click, day, delivery.id, link, destination)}"
            ),
            pixel=f"{base}o/{open_token(self._open, day, delivery.id)}.gif",
            own=self._names.public_base,
        )

    def _one_off(self, message: Message, rendered: Rendered, urls: Urls | None) -> Stencil:
        html = rendered.html
        if urls is not None and message.plan is not None:
            html = spliced(message.plan, html, urls)
        content = msgspec.structs.replace(
            message.content, subject=rendered.subject, text=rendered.text, html=html
        )
        return Stencil(content, boundary=message.boundary)

    def _signer(self, domain: str, selector: str, algorithm: Algorithm, sealed: bytes) -> Signer:
        key = (domain, selector)
        if (signer := self._signers.get(key)) is None:
            pem = unseal(sealed, self._master_key, domain)
            signer = self._signers[key] = Signer(domain, selector, pem, algorithm)
        return signer

    def _compile(self, row: Mapping[str, Any]) -> Message:
        if row["private_key_sealed"] is None:
            raise Unsendable("its sending domain is not verified", for_good=False)
        domain = row["domain"]
        further = msgspec.json.decode(row["further_keys"], type=list[_FurtherKey])
        signers = [
            self._signer(domain, row["selector"], row["algorithm"], row["private_key_sealed"]),
            *[self._signer(domain, key.selector, key.algorithm, key.sealed) for key in further],
        ]
        if self._platform is not None:
            signers.append(self._platform)
        headers = msgspec.json.decode(row["headers"] or "{}", type=dict[str, str])
        marketing = row["stream"] == Stream.MARKETING
        if row["template"] == RAW:
            return self._raw(row, tuple(signers), marketing=marketing)
        plan = (
            compile_links(row["html"], liquid=bool(row["template"]))
            if marketing and self._names.track_base
            else None
        )
        html: str = plan.source if plan is not None else row["html"]
        template = compile_template(row["subject"], html, row["text"]) if row["template"] else None
        parts: dict[str, tuple[str | int, ...]] | None = {
            "subject": (row["subject"],),
            "text": (row["text"],),
            "html": (html,),
        }
        rooms: list[int] = []
        if template is not None:
            parts = dict(template.pieces.parts) if template.pieces is not None else None
            rooms = [PLAIN_LIMIT] * len(template.pieces.slots) if template.pieces is not None else []
        tracked = track(plan, parts["html"], len(rooms)) if plan is not None and parts is not None else None
        if tracked is not None and parts is not None:
            parts["html"] = tracked.html
            rooms += [_URL_ROOM] * len(tracked.places)
        content = MailContent(
            sender=row["sender"],
            subject=row["subject"],
            reply_to=row["reply_to"],
            headers=(
                *headers.items(), feedback_id(row["broadcast_id"] or 0, row["site_id"], Stream(row["stream"]), self._names.sender_id),
            ),
            fields=_MARKETING_FIELDS if marketing else _FIELDS,
            attachments=unpack_attachments(row["attachments"]),
        )  # fmt: skip
        # Nobody who writes content can guess the boundary, so none can write it into a part.
        mark = blake2b(row["id"].to_bytes(8), key=self._boundary_key, digest_size=12).hexdigest()
        boundary = f"=_{mark}"
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
            content=content, stencil=stencil, template=template, boundary=boundary, signers=tuple(signers), marketing=marketing, size_bytes=_size_bytes(content, row),
            plan=plan, tracked=tracked,
        )  # fmt: skip

    def _raw(self, row: Mapping[str, Any], signers: tuple[Signer, ...], *, marketing: bool) -> Message:
        """A message that came whole over SMTP: nothing is rendered, nothing tracked."""
        headers = [feedback_id(row["broadcast_id"] or 0, row["site_id"], Stream(row["stream"]), self._names.sender_id)]  # fmt: skip
        try:
            whole = unpack_raw(row["attachments"])
            stencil = RawStencil(whole, headers=headers, fields=_MARKETING_FIELDS if marketing else _FIELDS)
        except Invalid as error:
            raise Unsendable(str(error), for_good=True) from error
        return Message(
            content=MailContent(sender=row["sender"], subject=row["subject"]), stencil=stencil, template=None, boundary="",
            signers=signers, marketing=marketing, size_bytes=2_000 + 2 * len(whole), plan=None, tracked=None,
        )  # fmt: skip


def _size_bytes(content: MailContent, row: Mapping[str, Any]) -> int:
    """About what a message takes in memory: its text as it came, in pieces and encoded; its files in base64."""
    text = len(row["subject"]) + len(row["html"]) + len(row["text"])
    return 2_000 + 4 * text + sum(2 * len(file.data) for file in content.attachments)


def _plain(part: tuple[str | int, ...]) -> str | tuple[str | int, ...]:
    """A part without slots as text."""
    return "".join([str(piece) for piece in part]) if all(isinstance(piece, str) for piece in part) else part
