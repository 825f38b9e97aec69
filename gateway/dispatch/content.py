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

from gateway.campaigns.render import Template, compile_template
from gateway.config import MailConfig
from gateway.errors import ConfigError, GatewayError, Invalid, KeySealError, TemplateError
from gateway.model.delivery import Leased
from gateway.model.ids import encode
from gateway.mta.keys import derive_key, unseal
from gateway.mta.mime import Filled, MailContent, Stencil, dot_stuff
from gateway.mta.sign import Algorithm, Signer
from gateway.mta.wire import Mail

CACHED_MESSAGES: Final = 2_000
CACHED_SIGNERS: Final = 5_000
_DAY_S: Final = 86_400
_NO_VALUES: Final[list[str]] = []


class Unsendable(GatewayError):
    """A delivery that cannot be made into bytes. `for_good`: trying again cannot help."""

    def __init__(self, why: str, *, for_good: bool) -> None:
        super().__init__(why)
        self.for_good = for_good


class Names(msgspec.Struct, frozen=True):
    """Our own names in what we send."""

    bounce_domain: str
    message_id_domain: str


class Message(msgspec.Struct, frozen=True):
    """What all deliveries of one message share. `stencil` is None where each recipient's text is rendered whole."""

    content: MailContent
    stencil: Stencil | None
    template: Template | None
    boundary: str
    signers: tuple[Signer, ...]


class _FurtherKey(msgspec.Struct, frozen=True):
    """A key that signs beside the domain's first, as the query gives it; `sealed` in base64."""

    selector: str
    algorithm: Algorithm
    sealed: bytes


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
        """Drop the least used messages beyond the bound, and those that a later look may mend. Call it between claims."""
        for message_id in [
            i for i, m in self._messages.items() if isinstance(m, Unsendable) and not m.for_good
        ]:
            del self._messages[message_id]
        while len(self._messages) > CACHED_MESSAGES:
            self._messages.popitem(last=False)
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
            sender=f"b-{encode('dlv', delivery.id)}@{self._names.bounce_domain}",
            recipient=delivery.recipient,
            content=dot_stuff(b"".join([*signatures, filled.message])),
        )

    def _fill(self, message: Message, delivery: Leased) -> Filled:
        stencil, values = message.stencil, _NO_VALUES
        if (template := message.template) is not None:
            variables = msgspec.json.decode(delivery.variables) if delivery.variables else {}
            found = template.values(variables) if stencil is not None else None
            if (
                found is None
            ):  # the engine's alone: nothing is shared between recipients but the compiled template
                rendered = template.render(variables)
                parts = {"subject": rendered.subject, "text": rendered.text, "html": rendered.html}
                stencil = Stencil(
                    msgspec.structs.replace(message.content, **parts), boundary=message.boundary
                )
            else:
                values = found
        assert stencil is not None
        return stencil.fill(
            to=delivery.recipient,
            date=delivery.accepted_at,
            message_id=f"{encode('dlv', delivery.id)}@{self._names.message_id_domain}",
            values=values,
            fields=(str(delivery.id),),
        )

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
        content = MailContent(
            sender=row["sender"],
            subject=row["subject"],
            text=row["text"],
            html=row["html"],
            reply_to=row["reply_to"],
            headers=tuple(headers.items()),
            fields=("X-Gateway-Delivery",),
        )
        template = compile_template(row["subject"], row["html"], row["text"]) if row["template"] else None
        pieces, slots = (template.pieces, 0) if template else (None, 0)
        if pieces is not None:
            content, slots = msgspec.structs.replace(content, **pieces.parts), len(pieces.slots)
        # Nobody who writes content can guess the boundary, so none can write it into a part.
        mark = blake2b(row["id"].to_bytes(8), key=self._boundary_key, digest_size=12).hexdigest()
        boundary = f"=_{mark}"
        try:
            stencil = (
                Stencil(content, boundary=boundary, slots=slots)
                if template is None or pieces is not None
                else None
            )
        except Invalid as error:
            raise Unsendable(str(error), for_good=True) from error
        return Message(
            content=content, stencil=stencil, template=template, boundary=boundary, signers=tuple(signers)
        )
