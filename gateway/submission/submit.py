"""One message, from its octets and recipients to the reply that says that it is durable.

Owns the order: check, whose domain, how much waits, intake (one transaction, `store/intake`), reply. Must not know sockets. A message is known again
by its Message-ID and recipients, as a request is by its Idempotency-Key (`store/idempotency`, 48 h).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from gateway.config import ExpiryConfig
from gateway.errors import GatewayError, IdempotencyMismatch, Invalid, StoreUnavailable
from gateway.model.address import Address
from gateway.model.ids import Prefix, encode
from gateway.model.stream import Stream
from gateway.mta.raw import RAW, pack_raw
from gateway.store.intake import Accepted, Deliveries, Once, Submission
from gateway.submission.desk import Desk
from gateway.submission.dots import unclean
from gateway.submission.letter import Letter, once_key, read_letter
from gateway.submission.replies import line, reply_to
from gateway.telemetry import Event, log

_TAKEN: Final = 250
_USED: Final = (
    "this Message-ID was used before, to the same recipients, with other content; expected a new one"
)


async def submit(desk: Desk, site_id: int, recipients: Sequence[Address], content: bytes) -> str:
    """Accept a message for a site's recipients; the reply to its final dot. 250 means that it is on disk."""
    try:
        accepted = await _accept(desk, site_id, recipients, content)
    except IdempotencyMismatch:
        reply = line("550 5.6.0", _USED)
    except GatewayError as error:
        reply = reply_to(error)
        if isinstance(error, StoreUnavailable):
            log.error(Event.SUBMISSION_FAILED, site_id=site_id, problem=str(error))
    else:
        held = len(accepted.suppressed)
        note = f" ({held} of {len(recipients)} suppressed)" if held else ""
        return f"250 2.0.0 queued as {accepted.answer.decode()}{note}"
    log.info(Event.SUBMISSION_REFUSED, site_id=site_id, reply=reply)
    return reply


async def _accept(desk: Desk, site_id: int, recipients: Sequence[Address], content: bytes) -> Accepted:
    if problem := unclean(content):
        raise Invalid([("", problem)])
    letter = read_letter(content)
    domain_id, *_ = [await desk.senders.domain_id(site_id, domain) for domain in letter.domains]
    now = desk.clock.now()
    expires_at = now + timedelta(seconds=letter.expires_in_s or _lasts_s(letter, desk.config.expiry))
    addresses = [address.wire for address in recipients]
    message = Submission(
        domain_id=domain_id,
        stream=letter.stream,
        sender=letter.sender,
        subject=letter.subject,
        deliveries=Deliveries(
            addresses, [address.domain for address in recipients], [None] * len(addresses), now, expires_at
        ),
        template=RAW,
        attachments=pack_raw(letter.content),
    )
    await desk.backlogs.add(site_id, [message], desk.config.api.backlog_limit)
    once = Once(once_key(letter.message_id, addresses), letter.digest, _TAKEN) if letter.message_id else None
    return await desk.intake.submit(site_id, [message], now, _answer, once)


def _answer(numbers: Sequence[int]) -> bytes:
    return encode(Prefix.MESSAGE, numbers[0]).encode()


def _lasts_s(letter: Letter, expiry: ExpiryConfig) -> float:
    return expiry.transactional_s if letter.stream is Stream.TRANSACTIONAL else expiry.marketing_s
