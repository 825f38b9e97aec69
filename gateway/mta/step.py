"""Whether the reply to a message is its own, by what is answered behind it.

Pure. Owns one judgement: a message's dot and the next one's MAIL, RCPT and DATA leave in one write (RFC 2920), and four replies
are due. Of a receiver that says nothing to the dot, its answer to MAIL would be taken for that; one that says something twice is a
reply behind. The codes tell both. Must not know connections, or what a refusal means (`mta/reply.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum


class Step(Enum):
    """What the replies to MAIL, RCPT and DATA say of the reply before them."""

    IN = "nothing against it"
    TOO_FEW = "one is missing: what was taken for the answer to the dot may be that to MAIL"
    TOO_MANY = "one is too many: the first is the dot's, of the others nobody knows"


def step_behind(codes: Sequence[int], *, silent: bool) -> Step:
    """Judge by the codes that came where MAIL, RCPT and DATA are answered, three at most.

    Where a reply is left out, the next stands in its place, and 354 where RCPT is answered. A refusal of RCPT is followed by one of
    DATA at once; where that is not heard (`silent`: the connection stands, and the time is over), what was heard were RCPT's and
    DATA's. Where one is too many, DATA gets what RCPT was told, or a recipient is taken though MAIL was refused.
    """
    mail, rcpt, data = (*codes[:3], 0, 0, 0)[:3]
    if 300 <= mail < 400 or 300 <= rcpt < 400:
        return Step.TOO_FEW
    if silent and rcpt >= 400 and not data and 421 not in (mail, rcpt):
        return Step.TOO_FEW
    if (mail >= 400 and 200 <= rcpt < 300) or (data < 400 and data not in (0, 354)):
        return Step.TOO_MANY
    return Step.IN
