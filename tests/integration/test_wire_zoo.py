"""Each odd receiver of the zoo, two messages in a row, sent as a lane sends them: what they come to, and that nothing hangs."""

from __future__ import annotations

import pytest

from gateway.model.disposition import Disposition
from gateway.mta.wire import Mail, Session, SessionFailed, Timeouts, open_session
from tests.support.scripted_smtp import ScriptedServer, scripted
from tests.support.zoo import ZOO

# Long enough for a busy machine, where a receiver answers; what is never answered costs one of these.
TIMEOUTS = Timeouts(connect_s=5, banner_s=1, mail_s=1, rcpt_s=0.5, data_s=1, dot_s=1, in_step_s=0.5)
MAILS = [
    Mail("b@bounces.example", f"{name}@there.example", b"Subject: hi\r\n\r\nhello\r\n")
    for name in ("ann", "bob")
]

TAKEN, IN_DOUBT, NO_SUCH_USER = "delivered ok", "in_doubt", "bounced invalid"
LOST, ODD, LATE = "deferred connection lane", "deferred protocol recipient", "deferred timeout lane"
EXPECTED = {
    "greets in pieces": TAKEN,
    "greets in many lines": TAKEN,
    "EHLO refused": TAKEN,
    "no extensions": TAKEN,
    "codes without text": TAKEN,
    "codes and a space": TAKEN,
    "everything in many lines": TAKEN,
    "bare line feeds": TAKEN,
    "byte by byte": TAKEN,
    "PIPELINING, but answers one at a time": TAKEN,
    "354 in many lines": TAKEN,
    "controls in its replies": TAKEN,
    "STARTTLS refused": TAKEN,
    "says 251": TAKEN,
    "250, then closes": TAKEN,
    "250, then resets": TAKEN,
    "250 twice": TAKEN,
    "250 twice, and goes on": TAKEN,
    "250, then a stray 550": TAKEN,
    "250, then refuses the sender": TAKEN,
    "250 and a goodbye": TAKEN,
    "250 and half a line": TAKEN,
    "hangs up on the second MAIL": TAKEN,
    "no RSET": NO_SUCH_USER,
    "554 greeting": "deferred policy lane",
    "421 greeting": LOST,
    "250 greeting": ODD,
    "greeting without end": ODD,
    "endless greeting": ODD,
    "two greetings": ODD,
    "never greets": LATE,
    "closes at once": LOST,
    "421 to EHLO": LOST,
    "EHLO without end": ODD,
    "endless EHLO": ODD,
    "EHLO answered twice": ODD,
    "EHLO and HELO refused": "deferred policy lane",
    "more after 220 to STARTTLS": ODD,
    "replies without codes": ODD,
    "closes after MAIL": LOST,
    "silent after MAIL": LATE,
    "421 in the pipeline": "deferred policy lane",
    "refuses, then 421": NO_SUCH_USER,
    "refuses, then closes": NO_SUCH_USER,
    "354 for nobody, then closes": NO_SUCH_USER,
    "250 to DATA": ODD,
    "354 to MAIL": ODD,
    "takes the recipient of a refused MAIL": ODD,
    "a reply too many": ODD,
    "250 before the dot": ODD,
    "half a 250 before the dot": ODD,
    "closes after 354": IN_DOUBT,
    "resets after the dot": IN_DOUBT,
    "silent after the dot": IN_DOUBT,
    "no reply to the dot": IN_DOUBT,
    "no reply to the dot, and no such user": IN_DOUBT,
    "354 to the dot": IN_DOUBT,
    "no code after the dot": IN_DOUBT,
    "a line without end after the dot": IN_DOUBT,
    "421 to the dot": LOST,
    "550 to the dot": "bounced spam",
}


# A surplus reply is taken for the answer to the MAIL that was sent with the dot; no others follow it, nor content.
EXPECTED_AHEAD = {"250 twice": "deferred timeout lane"}


def said(disposition: Disposition) -> str:
    words = [disposition.outcome, disposition.bounce_class, disposition.scope]
    return " ".join(words[: {"in_doubt": 1, "deferred": 3}.get(disposition.outcome, 2)])


class Lane:
    """Sends one message after another over a session, and over a new one where the old one is of no more use."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server, self.dots = server, 0
        self.session: Session | None = None

    async def send(self, mail: Mail, following: Mail | None = None) -> Disposition:
        for _ in range(2):
            if self.session is None or not self.session.usable:
                try:
                    self.session = await open_session("127.0.0.1", self.server.port, "out.example", TIMEOUTS)
                except SessionFailed as failed:
                    return failed.disposition
            before = self.dots
            disposition = await self.session.transact(mail, self.dot, ahead=lambda: following)
            if not self.session.stale:
                return disposition
            assert self.dots == before, "a stale session has sent nothing"
        raise AssertionError("two stale sessions in a row")

    def dot(self) -> None:
        self.dots += 1


@pytest.mark.parametrize("ahead", [False, True], ids=["one by one", "opened ahead"])
@pytest.mark.parametrize("name", ZOO)
async def test_what_each_of_two_messages_comes_to(name: str, ahead: bool) -> None:
    expected = EXPECTED[name]
    of_second = EXPECTED_AHEAD.get(name, expected) if ahead else expected
    async with scripted(*ZOO[name]) as server:
        lane = Lane(server)
        first, second = MAILS
        came_to = [await lane.send(first, second if ahead else None), await lane.send(second)]
        if lane.session is not None:
            lane.session.quit()
    assert [said(disposition) for disposition in came_to] == [expected, of_second]
    for disposition in came_to:
        assert disposition.text.isprintable()
        assert len(disposition.text) <= 1_024
    if expected.startswith(("deferred", "bounced")) and "to the dot" not in name:
        assert lane.dots == 0
        assert not any(b"hello" in heard for heard in server.heard), (
            "no content without a dot that was announced"
        )


def test_every_odd_receiver_has_its_expectation() -> None:
    assert set(EXPECTED) == set(ZOO)
