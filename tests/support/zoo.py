"""Receivers as they should not be, and some that may be so though few are: scripts for `scripted`, one tuple a server.

Each tuple holds the script of its first connection, of its second, …; the last one is played again and again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from tests.support.scripted_smtp import (
    EHLO_PIPELINING,
    EHLO_PLAIN,
    GREETING,
    OPENING,
    TAKEN,
    Close,
    Drip,
    Reset,
    Step,
    Until,
)

Scripts = tuple[Sequence[Step], ...]
OK: Final = b"250 2.0.0 ok\r\n"
GO: Final = b"250 ok\r\n250 ok\r\n354 go\r\n"
QUIT_OK: Final = (Until(b"QUIT"), b"221 bye\r\n")
ONE: Final[tuple[Step, ...]] = (*TAKEN, OK)
TWO: Final[tuple[Step, ...]] = (*ONE, *ONE)


def in_steps(
    opening: Sequence[Step], ok: bytes = OK, go: bytes = b"354 go\r\n", messages: int = 2
) -> Sequence[Step]:
    """A server that is waited for at each command."""
    one: list[Step] = [
        Until(b"MAIL"),
        ok,
        Until(b"RCPT"),
        ok,
        Until(b"DATA\r\n"),
        go,
        Until(b"\r\n.\r\n"),
        ok,
    ]
    return [*opening, *one * messages]


def _many_lines(script: Sequence[Step]) -> list[Step]:
    """Every reply in three lines."""
    return [
        re.sub(rb"(?m)^(\d{3}) (.*)\r\n", rb"\1-first\r\n\1-\r\n\1 \2\r\n", step) if isinstance(step, bytes) else step
        for step in script
    ]  # fmt: skip


def _bare_lf(script: Sequence[Step]) -> list[Step]:
    return [step.replace(b"\r\n", b"\n") if isinstance(step, bytes) else step for step in script]


def _dripping(script: Sequence[Step]) -> list[Step]:
    return [Drip(step) if isinstance(step, bytes) else step for step in script]


def _refused_at(*replies: bytes) -> Sequence[Step]:
    return [*OPENING, Until(b"DATA\r\n"), *replies]


STARTTLS_OFFERED: Final[tuple[Step, ...]] = (
    GREETING, Until(b"EHLO"), b"250-mx.example\r\n250-STARTTLS\r\n250 PIPELINING\r\n", Until(b"STARTTLS\r\n"),
)  # fmt: skip

ZOO: Final[dict[str, Scripts]] = {
    # Odd, and yet one can talk to them.
    "greets in pieces": ([b"22", b"0-mx.exa", b"mple\r", b"\n220 ESMTP", b"\r\n", *OPENING[1:], *TWO],),
    "greets in many lines": ([b"220-mx.example\r\n220-no spam\r\n220 ready\r\n", *OPENING[1:], *TWO],),
    "EHLO refused": (in_steps([GREETING, Until(b"EHLO"), b"502 5.5.1 what?\r\n", Until(b"HELO"), OK]),),
    "no extensions": (in_steps([GREETING, Until(b"EHLO"), EHLO_PLAIN]),),
    "codes without text": (
        in_steps([b"220\r\n", Until(b"EHLO"), b"250\r\n"], ok=b"250\r\n", go=b"354\r\n"),
    ),
    "codes and a space": (
        in_steps([b"220 \r\n", Until(b"EHLO"), b"250 \r\n"], ok=b"250 \r\n", go=b"354 \r\n"),
    ),
    "everything in many lines": (_many_lines([*OPENING, *TWO]),),
    "bare line feeds": (_bare_lf([*OPENING, *TWO]),),
    "byte by byte": (_dripping([*OPENING, *TWO]),),
    "PIPELINING, but answers one at a time": (in_steps(OPENING),),
    "354 in many lines": (
        [*OPENING, *((Until(b"DATA\r\n"), b"250 ok\r\n250 ok\r\n354-please\r\n354-do\r\n", b"354 go\r\n", Until(b"\r\n.\r\n"), OK) * 2)],
    ),
    "controls in its replies": ([*OPENING, *(*TAKEN, b"250 \xff\xfe\x00\x1b[2J ok\r\n") * 2],),
    "STARTTLS refused": ([*STARTTLS_OFFERED, b"454 4.7.0 not now\r\n", *TWO],),
    "says 251": ([*OPENING, *(Until(b"DATA\r\n"), b"250 ok\r\n251 will forward\r\n354 go\r\n", Until(b"\r\n.\r\n"), OK) * 2],),
    # A session ends after one message, and nobody is the worse for it.
    "250, then closes": ([*OPENING, *ONE, Close()],),
    "250, then resets": ([*OPENING, *ONE, Reset()],),
    "250 twice": ([*OPENING, *TAKEN, OK + OK],),
    "250 twice, and goes on": ([*OPENING, *TAKEN, OK + OK, Until(b"DATA\r\n"), GO, Until(b"\r\n.\r\n"), OK],),
    "250, then a stray 550": (
        [*OPENING, *TAKEN, OK + b"550 5.1.1 no such user\r\n", Until(b"DATA\r\n"), GO, Until(b"\r\n.\r\n"), OK],
    ),
    "250, then refuses the sender": (
        [*OPENING, *TAKEN, OK + b"550 5.7.1 not you\r\n503 no sender\r\n503 no sender\r\n"], [*OPENING, *ONE],
    ),
    "250 and a goodbye": ([*OPENING, *TAKEN, OK + b"421 4.4.2 idle\r\n", Close()],),
    "250 and half a line": ([*OPENING, *TAKEN, OK + b"42"],),
    "hangs up on the second MAIL": ([*OPENING, *ONE, Until(b"MAIL"), Close()], [*OPENING, *ONE]),
    "no RSET": (
        [*_refused_at(b"250 ok\r\n550 5.1.1 no such user\r\n503 no recipients\r\n"), Until(b"RSET"), b"502 what?\r\n"],
    ),
    # Nobody gets in.
    "554 greeting": ([b"554 5.7.1 go away\r\n", Close()],),
    "421 greeting": ([b"421 4.3.2 too busy\r\n", Close()],),
    "250 greeting": ([b"250 hello\r\n"],),
    "greeting without end": ([b"220-" + b"x" * 70_000],),
    "endless greeting": ([b"220-more\r\n" * 9_000],),
    "two greetings": ([GREETING + GREETING, *OPENING[1:], *TWO],),
    "never greets": ([Until(b"never")],),
    "closes at once": ([Close()],),
    "421 to EHLO": ([GREETING, Until(b"EHLO"), b"421 later\r\n", Close()],),
    "EHLO without end": ([GREETING, Until(b"EHLO"), b"250-" + b"x" * 70_000],),
    "endless EHLO": ([GREETING, Until(b"EHLO"), b"250-MORE\r\n" * 9_000],),
    "EHLO answered twice": ([GREETING, Until(b"EHLO"), EHLO_PIPELINING + b"250 ok\r\n"],),
    "EHLO and HELO refused": ([GREETING, Until(b"EHLO"), b"550 no\r\n", Until(b"HELO"), b"550 no\r\n"],),
    "more after 220 to STARTTLS": ([*STARTTLS_OFFERED, b"220 go\r\n250-mx\r\n250 PIPELINING\r\n", *TWO],),
    # Takes no message.
    "replies without codes": (_refused_at(b"ok\r\nok\r\ngo\r\n"),),
    "closes after MAIL": (_refused_at(b"250 ok\r\n", Close()),),
    "silent after MAIL": (_refused_at(b"250 ok\r\n"),),
    "421 in the pipeline": (_refused_at(b"250 ok\r\n421 4.7.0 too much\r\n", Close()),),
    "refuses, then 421": (_refused_at(b"250 ok\r\n550 5.1.1 no such user\r\n421 4.7.0 bye\r\n", Close()),),
    "refuses, then closes": (_refused_at(b"250 ok\r\n550 5.1.1 no such user\r\n", Close()),),
    "354 for nobody, then closes": (
        [*_refused_at(b"250 ok\r\n550 5.1.1 no such user\r\n354 go\r\n"), Until(b".\r\n"), Close()],
    ),
    "250 to DATA": (_refused_at(b"250 ok\r\n250 ok\r\n250 ok\r\n"),),
    "354 to MAIL": (_refused_at(b"354 go\r\n250 ok\r\n250 ok\r\n"),),
    "takes the recipient of a refused MAIL": (_refused_at(b"550 5.1.1 no such user\r\n250 ok\r\n354 go\r\n"),),
    "a reply too many": (_refused_at(b"550 5.1.1 no such user\r\n250 ok\r\n250 ok\r\n354 go\r\n"),),
    "250 before the dot": (_refused_at(b"250 ok\r\n250 ok\r\n354 go\r\n250 queued\r\n"),),
    "half a 250 before the dot": (_refused_at(b"250 ok\r\n250 ok\r\n354 go\r\n25"),),
    # May have taken it.
    "closes after 354": ([*OPENING, *TAKEN[:2], Until(b"Subject"), Close()],),
    "resets after the dot": ([*OPENING, *TAKEN, Reset()],),
    "silent after the dot": ([*OPENING, *TAKEN],),
    "no reply to the dot": ([*OPENING, *TAKEN, Until(b"DATA\r\n"), GO],),
    "no reply to the dot, and no such user": (
        [*OPENING, *TAKEN, Until(b"DATA\r\n"), b"250 ok\r\n550 5.1.1 no such user\r\n503 no recipients\r\n"],
    ),
    "354 to the dot": ([*OPENING, *TAKEN, b"354 go on\r\n"],),
    "no code after the dot": ([*OPENING, *TAKEN, b"queued\r\n"],),
    "a line without end after the dot": ([*OPENING, *TAKEN, b"250-" + b"x" * 70_000],),
    # Refuses it at the end.
    "421 to the dot": ([*OPENING, *TAKEN, b"421 4.3.2 shutting down\r\n", Close()],),
    "550 to the dot": ([*OPENING, *(*TAKEN, b"550 5.7.1 spam\r\n") * 2],),
}  # fmt: skip
