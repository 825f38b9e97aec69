"""How the world answers: for each recipient a script, the answers to its first, second … try. Pure.

Owns the behaviours (a table), who behaves how (a forced prefix of the local part, a rule of the domain, or a hash of
the address against shares), and the TOML that tunes it. Knows nothing of sockets, of SMTP's grammar, or of how many
tries there were: the caller counts them, and only for scripts that are longer than one answer.

Precedence, first match wins:

    1. ``[[domain]] always``       one behaviour for the whole domain, its first answer at every try
    2. a forced prefix             the local part up to the first ``.`` or ``+``: ``grey1.ann@…``, ``slow250+x@…``
    3. ``[[domain]] shares``       instead of the world's shares
    4. the world's ``[shares]``    what they leave is ``ok``

Example of a world file::

    ehlo = "220"                       # or e.g. "554 5.7.1 not you": the answer to every EHLO
    [shares]                           # probabilities; left out: 0; the rest is ok
    grey1 = 0.05
    unknown = 0.02
    [[domain]]
    name = "busy.test"
    always = "rate421"
    [[domain]]
    name = "closed.test"
    address = "127.0.0.2"              # the sink listens here as well (same port) …
    ehlo = "554 5.7.1 not you"         # … and this is what EHLO is told there

A receiver learns the recipient's domain only at RCPT, so what a *domain* says at EHLO needs an address of its own.
"""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import accumulate
from typing import Final, cast


class Act(IntEnum):
    """What is done to a try. Ordered: where recipients of one message differ at DATA or the dot, the highest wins."""

    ACCEPT = 0  # taken, 250
    REFUSE_RCPT = 1  # refused at RCPT, this recipient alone
    REFUSE_DOT = 2  # refused after the final dot
    BAD_REPLY = 3  # taken, then a line that is no SMTP reply
    RESET = 4  # taken, 250, then RST
    HANG = 5  # taken, never a reply
    DROP_TAKEN = 6  # taken, then closed without a reply
    DROP_LOST = 7  # not taken, closed at the dot without a reply
    DROP_DATA = 8  # not taken, closed at DATA


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to one try.

    ``reply`` is the whole line, bytes without CRLF, empty where none is sent. ``delay_s`` is the wait before the reply
    to the dot. A 421 also closes the connection (RFC 5321 §3.8).
    """

    act: Act
    code: int = 0
    reply: bytes = b""
    delay_s: float = 0.0


Script = tuple[Answer, ...]
"""Answers to the first, second … try; the last one holds for ever. Never empty."""


class WorldError(ValueError):
    """A world file says something that cannot be meant; the text names the key and what would be right."""


def _refuse(code: int, text: str, act: Act = Act.REFUSE_RCPT) -> Answer:
    return Answer(act, code, f"{code} {text}".encode())


_OK: Final = Answer(Act.ACCEPT, 250, b"250 2.0.0 taken")
_GREY: Final = _refuse(451, "4.7.1 greylisted, try again later")
_FULL: Final = _refuse(452, "4.2.2 mailbox full")
_BAD: Final = b"\xff\x00 this is not a reply"

BEHAVIOURS: Final[Mapping[str, Script]] = {
    "ok": (_OK,),
    "grey1": (_GREY, _OK),
    "grey2": (_GREY, _GREY, _OK),
    "rate421": (_refuse(421, "4.7.0 too many messages, closing"), _OK),
    "rate450": (_refuse(450, "4.7.1 too many messages from you, slow down"), _OK),
    "full": (_FULL, _FULL, _OK),
    "unknown": (_refuse(550, "5.1.1 user unknown"),),
    "policy": (_refuse(554, "5.7.1 refused by policy", Act.REFUSE_DOT),),
    "dropdot": (Answer(Act.DROP_TAKEN), _OK),
    "lostdot": (Answer(Act.DROP_LOST), _OK),
    "dropdata": (Answer(Act.DROP_DATA), _OK),
    "hang": (Answer(Act.HANG), _OK),
    "resetafter": (Answer(Act.RESET, 250, _OK.reply), _OK),
    "badreply": (Answer(Act.BAD_REPLY, 0, _BAD), _OK),
}
"""Every behaviour by its name, which is also the prefix that forces it. ``slowNNN`` (250 after NNN ms) is computed."""

DEFAULT_SHARES: Final[Mapping[str, float]] = {
    "grey1": 0.030,
    "grey2": 0.010,
    "rate421": 0.005,
    "rate450": 0.010,
    "full": 0.010,
    "unknown": 0.020,
    "policy": 0.005,
    "dropdot": 0.004,
    "lostdot": 0.004,
    "dropdata": 0.004,
}
"""The demo's world: 9 in 10 accept at once. Half of the connections lost after the dot had taken the message."""

_FORCED: Final = {name.encode(): script for name, script in BEHAVIOURS.items()}


@dataclass(frozen=True, slots=True)
class Shares:
    """Behaviours with their cumulative shares, for one look-up by a number in [0, 1)."""

    bounds: tuple[float, ...]
    scripts: tuple[Script, ...]  # one more than bounds: what is left is ok

    @classmethod
    def of(cls, shares: Mapping[str, float]) -> Shares:
        """From probabilities by name. Raises WorldError for an unknown name, or a sum or share outside 0 to 1."""
        for name, share in shares.items():
            _known(name, BEHAVIOURS, "behaviour")
            if not 0.0 <= share <= 1.0:
                raise WorldError(f"share of {name!r} is {share}: say 0 to 1")
        named = {name: share for name, share in shares.items() if name != "ok"}
        if sum(shares.values()) > 1.0 + 1e-9:
            raise WorldError(f"the shares add up to {sum(shares.values()):.4f}: at most 1")
        scripts = tuple(BEHAVIOURS[name] for name in named)
        return cls(tuple(accumulate(named.values())), (*scripts, BEHAVIOURS["ok"]))

    def pick(self, u: float) -> Script:
        """The script for ``u`` in [0, 1)."""
        return self.scripts[bisect_right(self.bounds, u)]


@dataclass(frozen=True, slots=True)
class Domain:
    """What one domain does otherwise than the world; ``None`` where it does not."""

    always: Script | None = None
    shares: Shares | None = None


@dataclass(frozen=True, slots=True)
class World:
    """Who behaves how. ``ehlo`` and the values of ``doors`` are whole replies to EHLO, bytes; empty: welcome.

    ``domains`` is keyed by lower-cased domain, ``doors`` by the address that the sink listens on for them.
    """

    shares: Shares
    seed: int = 0
    ehlo: bytes = b""
    domains: Mapping[bytes, Domain] = field(default_factory=dict[bytes, Domain])
    doors: Mapping[str, bytes] = field(default_factory=dict[str, bytes])

    def script(self, recipient: bytes) -> Script:
        """The answers to ``recipient`` (bytes of the address, domain in lower case), by the precedence above."""
        local, _, domain = recipient.rpartition(b"@")
        rule = self.domains.get(domain)
        if rule is not None and rule.always is not None:
            return rule.always
        prefix = local.partition(b".")[0].partition(b"+")[0]
        forced = _FORCED.get(prefix)
        if forced is not None:
            return forced
        if prefix.startswith(b"slow") and prefix[4:].isdigit():
            return (Answer(Act.ACCEPT, 250, _OK.reply, int(prefix[4:]) / 1000),)
        shares = self.shares if rule is None or rule.shares is None else rule.shares
        if not shares.bounds:
            return BEHAVIOURS["ok"]
        return shares.pick(_uniform(recipient, self.seed))

    def answer(self, recipient: bytes, tries: int) -> Answer:
        """The answer to a try of ``recipient`` after ``tries`` earlier ones."""
        script = self.script(recipient)
        return script[min(tries, len(script) - 1)]


def _uniform(recipient: bytes, seed: int) -> float:
    digest = hashlib.blake2b(recipient, digest_size=8, key=seed.to_bytes(8, "big")).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)  # 53 bits: a float64 below 1.0, exactly


def named(name: str, seed: int = 0) -> World:
    """The world called ``default`` or ``accept`` (all accept; prefixes still force). Raises WorldError otherwise."""
    worlds: Mapping[str, Mapping[str, float]] = {"default": DEFAULT_SHARES, "accept": {}}
    _known(name, worlds, "world")
    return World(Shares.of(worlds[name]), seed)


def load(text: str, seed: int = 0) -> World:
    """The world that a TOML file's ``text`` describes. Raises WorldError (bad TOML too), naming the key."""
    try:
        top = cast("dict[str, object]", tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise WorldError(f"not TOML: {error}") from None
    _keys(top, ("shares", "domain", "ehlo"), "the world file")
    domains: dict[bytes, Domain] = {}
    doors: dict[str, bytes] = {}
    for entry in _tables(top.get("domain", [])):
        _keys(entry, ("name", "always", "shares", "address", "ehlo"), "[[domain]]")
        name = _text(entry, "name", "").lower()
        if not name:
            raise WorldError("[[domain]] needs a name")
        always = _text(entry, "always", "")
        if always:
            _known(always, BEHAVIOURS, "behaviour")
        shares = Shares.of(_floats(entry["shares"])) if "shares" in entry else None
        domains[name.encode()] = Domain(BEHAVIOURS[always][:1] if always else None, shares)
        if "ehlo" in entry and "address" not in entry:
            raise WorldError(f"[[domain]] {name}: ehlo needs an address of its own, such as 127.0.0.2")
        if "address" in entry:
            doors[_text(entry, "address", "")] = _ehlo(entry)
    return World(Shares.of(_floats(top.get("shares", {}))), seed, _ehlo(top), domains, doors)


def _ehlo(table: Mapping[str, object]) -> bytes:
    reply = _text(table, "ehlo", "220")
    if not reply[:3].isdigit() or not reply.isprintable():
        raise WorldError(
            f"ehlo = {reply!r}: say a reply, such as '554 5.7.1 not you', or '220' for a welcome"
        )
    return b"" if reply.startswith("2") else reply.encode()


def _known(name: str, names: Mapping[str, object], what: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1) or sorted(names)
        raise WorldError(f"no {what} {name!r}: did you mean {' or '.join(near)}?")


def _keys(table: Mapping[str, object], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1) or known
            raise WorldError(f"{where}: unknown key {key!r}: did you mean {' or '.join(near)}?")


def _tables(value: object) -> list[dict[str, object]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in cast("list[object]", value)):
        raise WorldError("domain: write [[domain]] tables")
    return cast("list[dict[str, object]]", value)


def _text(table: Mapping[str, object], key: str, default: str) -> str:
    value = table.get(key, default)
    if not isinstance(value, str):
        raise WorldError(f"{key} = {value!r}: say a string")
    return value


def _floats(value: object) -> dict[str, float]:
    if not isinstance(value, dict):
        raise WorldError("shares: write a table of behaviour = probability")
    shares: dict[str, float] = {}
    for name, share in cast("dict[str, object]", value).items():
        if isinstance(share, bool) or not isinstance(share, int | float):
            raise WorldError(f"share of {name!r} is {share!r}: say a number from 0 to 1")
        shares[name] = float(share)
    return shares
