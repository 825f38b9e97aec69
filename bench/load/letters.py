"""The mails that a relay gets: the bytes that the gateway would send, less its signature, and their way in by SMTP.

Owns the making of those bytes from the message and the people of `bench/stage.py` (so that every contender sends the same
mails to the same recipients), and the injector's run over them. Must not know which relay takes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from bench.load.inject import Run, inject
from bench.load.run import HTML_BYTES, SUBJECT, TEXT, html
from bench.stage import FROM_DOMAIN
from gateway.campaigns.render import compile_template
from gateway.config import MailConfig
from gateway.model.ids import Prefix, encode
from gateway.mta.mime import MailContent, build, dot_stuff

_FIRST_ID = 1_024_000


class Letter(NamedTuple):
    """One mail on its way in. `content` is dot-stuffed and ends with CRLF; the final dot is not in it."""

    delivery: str
    """What the receiver's ledger calls it: the header X-Gateway-Delivery."""
    envelope: bytes
    content: bytes


def letters(count: int, domains: int) -> list[Letter]:
    """Render and build so many personal mails, in turn over the domains; some 0.4 ms each."""
    template = compile_template(SUBJECT, html(HTML_BYTES), TEXT)
    names = MailConfig()
    at = datetime.now(UTC).replace(microsecond=0)
    made: list[Letter] = []
    for number in range(_FIRST_ID, _FIRST_ID + count):
        rendered = template.render({"first_name": f"Ann{number}", "city": "Oslo", "plan": "pro"})
        name, recipient = encode(Prefix.DELIVERY, number), f"user{number}@d{number % domains}.test"
        raw = build(
            MailContent(
                sender=f"News <news@{FROM_DOMAIN}>",
                subject=rendered.subject,
                text=rendered.text,
                html=rendered.html,
                own=(("X-Gateway-Delivery", str(number)),),
            ),
            to=recipient,
            message_id=f"{name}@{names.message_id_domain}",
            date=at,
            boundary=f"=_{name}",
        )
        envelope = f"MAIL FROM:<b-{name}@{names.bounce_domain}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n"
        made.append(Letter(str(number), envelope.encode("ascii"), dot_stuff(raw)))
    return made


@dataclass(slots=True)
class _Posting(Run):
    """The injector's run over letters instead of over one body."""

    letters: Sequence[Letter] = ()

    def next(self) -> tuple[bytes, bytes] | None:
        """The envelope and content of the next letter; None when all were handed out."""
        if self.started >= self.messages:
            return None
        letter = self.letters[self.started]
        self.started += 1
        return letter.envelope, letter.content + b".\r\n"


async def post(letters: Sequence[Letter], port: int, connections: int) -> None:
    """Hand the letters to a relay on loopback, each connection one after another, all of them at once.

    Raises:
        RuntimeError: it did not take all of them.
        OSError: nobody listens there.
    """
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    run = _Posting(len(letters), min(connections, len(letters)), b"", 1, done, letters=letters)
    await inject("127.0.0.1", port, run)
    if run.sent != len(letters):
        raise RuntimeError(f"the relay took {run.sent} of {len(letters)} mails; its log says why")
