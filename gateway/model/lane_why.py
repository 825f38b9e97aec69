"""Why a lane waits, as the one line that is kept with it: `rate 450 4.7.1: what the receiver said`. Pure.

Owns its form. Before the colon stands what anybody may know who sends to the lane: our judgement and the codes. The words behind it were
said to one site's message, and may name its recipient in any form; they are for operators alone.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from gateway.model.disposition import BounceClass, Disposition

_TEXT_LIMIT: Final = 300
_CLASSES: Final = "|".join(BounceClass)
_HEAD: Final = re.compile(rf"({_CLASSES})(?: ([245]\d\d))?(?: ([245]\.\d{{1,3}}\.\d{{1,3}}))?: ")


class LaneRefusal(msgspec.Struct, frozen=True):
    """What may be told of a refusal to everybody: its bounce class, and the reply's codes (empty: no reply was read)."""

    bounce_class: str
    codes: str


def lane_why(disposition: Disposition) -> str:
    """Return the line for a lane that was refused as a whole."""
    codes = [str(disposition.code)] if disposition.code else []
    codes += [disposition.enhanced] if disposition.enhanced else []
    return f"{' '.join([disposition.bounce_class, *codes])}: {disposition.text[:_TEXT_LIMIT]}"


def refusal_of(why: str) -> LaneRefusal | None:
    """Read a kept line; None: it is none of ours (an operator's words, or an older version's)."""
    head = _HEAD.match(why)
    return LaneRefusal(head[1], " ".join(part for part in head.groups()[1:] if part)) if head else None
