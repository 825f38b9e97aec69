"""What the whole way is measured in: the scenarios of `python -m bench run`, and what each should reach. Pure.

Owns their names and settings. Each runs as an operator would set the gateway up for it; where that differs from the defaults,
`dispatch` has the keys of the `[dispatch]` table, and `about` says why. Must not know how a run is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from bench.load.letter import HTML_BYTES, OVERHEAD_BYTES, Content
from gateway.throttle.shaping import Limits

Signing = Literal["rsa", "rsa+rsa", "ed25519"]

ALGORITHMS: Final[Mapping[Signing, tuple[str, ...]]] = {
    "rsa": ("rsa-sha256",),
    "rsa+rsa": ("rsa-sha256", "rsa-sha256"),
    "ed25519": ("ed25519-sha256",),
}
"""The DKIM signatures that a message must arrive with."""

HEADLINE: Final = "headline"
DELAYED: Final = "round-trip"
UNDELAYED: Final = "many-connections"

REACH_RSS_MIB: Final = 150.0
REACH_DELAY: Final = 0.8
"""Of its rate without delay, with 80 ms of added round trip."""

_QUICK_DOMAINS: Final = 10
UNLIMITED: Final = Limits(
    # Of no effect on the rate (25,000 a second over 50 lanes). But the turn of what was claimed lasts (burst - 1) / rate = 2 s:
    # what waits here for longer than that goes back to the queue, and is claimed again. With turns of 0.2 s (100,000 a second,
    # burst 20,000) that was 10 to 20 % of all deliveries on a busy machine (2026-11-26).
    rate_per_s=500.0,
    burst=1_000,
    max_connections=20,
    max_per_dispatcher=20,  # [dispatch] connections_per_lane decides
)

BUSY: Final = {
    # With the default of 500, some connections always waited for the next claim: 1,200 messages a second instead of 1,650
    # (2026-11-26, one dispatcher on two busy cores).
    "in_flight": 1_000,
}


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario; the defaults are those of the headline."""

    name: str
    about: str
    messages: int = 6_000
    warm_up: int = 1_000
    domains: int = 50
    html_bytes: int = HTML_BYTES
    content: Content = "personal"
    signing: Signing = "rsa"
    dispatchers: int = 1
    tracked: bool = False
    """Links and opens are tracked."""
    tls: bool = False
    """The receiver offers STARTTLS, and all mail must come over it."""
    delay_ms: float = 0.0
    """The receiver holds every group of replies back so long."""
    dispatch: Mapping[str, int | str] = msgspec.field(default_factory=lambda: dict(BUSY))
    """Keys of the gateway's `[dispatch]` that are not as by default."""
    limits: Limits = UNLIMITED
    ratio_at_most: float | None = None
    """CPU of gateway and Postgres a message, in RSA-2048 signatures."""
    rate_at_least: float | None = None
    """Messages a second."""


_MANY: Final = {
    **BUSY,
    # A claim gives a lane as many rows as it will hold, so that few lanes get all of a big one, and the connections of the others
    # wait: with 400 rows a claim 470 to 600 messages a second at 80 ms, with 100 850, with 50 950 (2026-11-26).
    "claim_rows": 50,
    "connections_per_lane": 20,  # × 10 lanes
    "messages_per_connection": 20,
}

SCENARIOS: Final = (
    Scenario(
        name=HEADLINE,
        about="14 kB, personal by its template with 10 links, one RSA-2048 signature, one dispatcher",
        ratio_at_most=3.0,
        rate_at_least=1_200.0,
    ),
    Scenario(
        name="two-signatures",
        about="the same, signed for the customer's domain and for the platform's",
        signing="rsa+rsa",
        ratio_at_most=4.0,
    ),
    Scenario(name="ed25519", about="the same with one Ed25519 signature", signing="ed25519"),
    Scenario(
        name="large",
        about="the same with 100 kB a message",
        messages=3_000,
        warm_up=500,
        html_bytes=100_000 - OVERHEAD_BYTES,
        rate_at_least=500.0,
    ),
    Scenario(
        name="own-content",
        about="14 kB, each message with its own content for one recipient: nothing is shared, nothing rendered",
        content="own",
        messages=4_000,
        warm_up=500,
    ),
    Scenario(name="tracked", about="the headline with its links and opens tracked", tracked=True),
    Scenario(name="two-dispatchers", about="the headline over two dispatchers", dispatchers=2),
    Scenario(
        name="starttls",
        about="the headline to a receiver that offers STARTTLS",
        tls=True,
        dispatch={**BUSY, "tls": "require"},
    ),
    Scenario(
        name=UNDELAYED,
        about="the headline over 200 connections of 20 messages each",
        domains=10,
        dispatch=_MANY,
    ),
    Scenario(
        name=DELAYED,
        about="the same with 80 ms of added round trip",
        domains=10,
        dispatch=_MANY,
        delay_ms=80.0,
    ),
)


def small(scenario: Scenario) -> Scenario:
    """A scenario made small: it shows that it works."""
    return msgspec.structs.replace(
        scenario, messages=500, warm_up=200, domains=min(scenario.domains, _QUICK_DOMAINS)
    )


def chosen(only: str, scenarios: Sequence[Scenario] = SCENARIOS) -> list[Scenario]:
    """All of them, or, unless `only` is empty, the one of that name, with the one that it is compared with.

    Raises:
        ValueError: there is none of that name; says which there are.
    """
    names = [scenario.name for scenario in scenarios]
    if only and only not in names:
        raise ValueError(f'no scenario is called "{only}"; there are {", ".join(names)}')
    wanted = {only, UNDELAYED} if only == DELAYED else {only} if only else set(names)
    return [scenario for scenario in scenarios if scenario.name in wanted]
