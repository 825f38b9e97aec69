"""From a message and a delivery to the bytes that go on the wire: fill, sign, stuff.

Owns the cache of messages, so that what is the same for all recipients is done once (`dispatch/message`), and what is one delivery's
own. All attempts of a delivery give the same bytes: date, Message-ID, boundary and signature time come from its acceptance. The work
is synchronous on purpose: whatever crashes here is the delivery the journal named last.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.campaigns.render import Rendered
from gateway.campaigns.tracked import Urls, shown_blocks, shown_places, spliced, spliced_text
from gateway.campaigns.tracking import click_token, open_token
from gateway.campaigns.unsubscribe import OptOut, SealRing
from gateway.dispatch.message import Compiler, Message, Names, Unsendable
from gateway.dispatch.signers import Signers
from gateway.errors import GatewayError, KeySealError, TemplateError
from gateway.model.delivery import Leased
from gateway.model.ids import encode
from gateway.model.token import Purpose, day_of
from gateway.mta.keys import derive_ring
from gateway.mta.list_headers import unsubscribe_value
from gateway.mta.mime import Filled, Stencil, dot_stuff
from gateway.mta.sign import Signer
from gateway.mta.verp import local_part
from gateway.mta.wire import Mail

CACHED_MESSAGES: Final = 2_000
CACHED_BYTES: Final = 48 * 2**20
_DAY_S: Final = 86_400
_NO_VALUES: Final[list[str]] = []


class Contents:
    """The messages at hand. `missing` says which to load, `add` takes their rows, `make` gives the bytes."""

    # Mutable on purpose: a bounded cache.
    def __init__(self, names: Names, master_key: bytes, platform: Signer | None = None) -> None:
        """Take our names, the envelope key, and the signer of our own domain where every mail gets its signature, too."""
        self._names = names
        self._signers = Signers(master_key, platform)
        self._compiler = Compiler(names, master_key, self._signers)
        self._verp = derive_ring(master_key, Purpose.VERP)
        self._click, self._open = (
            derive_ring(master_key, Purpose.CLICK),
            derive_ring(master_key, Purpose.OPEN),
        )
        self._unsubscribe = SealRing(derive_ring(master_key, Purpose.UNSUBSCRIBE))
        self._messages: OrderedDict[int, Message | Unsendable] = OrderedDict()

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
                    self._compiler.message(row) if row else Unsendable("its message is gone", for_good=True)
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
        self._signers.trim()

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
        plans, tracked = message.plans, message.tracked
        urls = self._urls(delivery) if plans is not None else None
        if (template := message.template) is not None:
            variables = msgspec.json.decode(delivery.variables) if delivery.variables else {}
            found = template.values(variables) if stencil is not None else None
            if (
                found is None
            ):  # the engine's alone: nothing is shared between recipients but the compiled template
                stencil = self._one_off(message, template.render(variables), urls)
            else:
                values = found
                if urls is not None and plans is not None and tracked is not None:
                    values = shown_blocks(plans, tracked, values, urls)
        assert stencil is not None
        if urls is not None and stencil is message.stencil and tracked is not None:
            values = values + shown_places(tracked, values, urls)
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
        html, text = rendered.html, rendered.text
        if urls is not None and message.plans is not None:
            html = spliced(message.plans.html, html, urls)
            text = spliced_text(message.plans.text, text, urls)
        content = msgspec.structs.replace(message.content, subject=rendered.subject, text=text, html=html)
        return Stencil(content, boundary=message.boundary)
