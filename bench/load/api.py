"""What the control API accepts: `POST /v1/messages`, durably, over HTTP.

Two loads on one API process: messages of 500 recipients over 300 domains from four clients, and messages of one recipient
from 32 clients to one destination. How it is measured is in `accepting`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from bench.load.accepting import Measured, costs, measure, measure_in_turn, seconds, site
from bench.load.http import Load, all_closed, open_clients, post
from bench.options import Options, Progress
from bench.processes import child, free_port, listening
from bench.report import Figure, Outcome, figure
from bench.stage import FROM_DOMAIN, Stage, shaping
from gateway.app.brief import Role
from gateway.throttle.shaping import Limits

MANY: Final = 500
DOMAINS: Final = 300
MANY_CLIENTS: Final = 4
ONE_CLIENTS: Final = 32
REACH_RECIPIENTS: Final = 40_000
REACH_REQUESTS: Final = 1_500
_BODIES: Final = 64


class Kind(msgspec.Struct, frozen=True):
    """One kind of load."""

    name: str
    clients: int
    recipients: int
    domains: int


LOADS: Final = (
    Kind(f"{MANY} recipients a request", MANY_CLIENTS, MANY, DOMAINS),
    Kind("one recipient a request", ONE_CLIENTS, 1, 1),
)


async def run(options: Options, tell: Progress) -> Outcome:
    """Measure both loads `options.runs` times in turn."""
    found = await measure_in_turn(
        options, tell, LOADS, _one,
        lambda load, one: f"{one.per_s:,.0f} requests/s, {one.per_s * load.recipients:,.0f} recipients/s; {one.line('API')}",
    )  # fmt: skip
    many, single = LOADS
    figures: dict[str, Figure] = {
        f"{many.name}: accepted": figure(
            [m.per_s * many.recipients for m in found[many.name]], "recipients/s", at_least=REACH_RECIPIENTS
        ),
        f"{single.name}: accepted": figure(
            [m.per_s for m in found[single.name]], "requests/s", at_least=REACH_REQUESTS
        ),
    }
    for load in LOADS:
        figures |= costs(load.name, "the API", "request", found[load.name])
    settings = {
        "seconds": seconds(options), "api_processes": 1, "synchronous_commit": True, "idempotency_keys": False,
        "loads": [msgspec.structs.asdict(load) for load in LOADS],
    }  # fmt: skip
    return Outcome(figures=figures, settings=settings)


async def _one(own: Stage, kind: Kind, seconds: float) -> Measured:
    name = f"api_{time.monotonic_ns()}"
    async with (
        site(own, name, api={"port": free_port()}) as (connection, dsn, config, key),
        child(Role.API, config, dsn, shaping(Limits())) as api,
    ):
        await listening(config.api.port, [api])
        load = Load(requests=[post("/v1/messages", key, body) for body in _bodies(kind)])
        over = all_closed(await open_clients(load, config.api.port, kind.clients))
        return await measure(own, connection, api, load, over, seconds, deliveries=kind.recipients)


def _bodies(kind: Kind) -> Sequence[bytes]:
    """Some bodies to send in turn: a few domains get most of the mail, as it is."""
    chance = random.Random(1)
    found: list[bytes] = []
    for number in range(_BODIES):
        to = [
            {
                "email": f"user{number * kind.recipients + i}@d{int(kind.domains * chance.random() ** 3)}.test",
                "variables": {"first_name": f"Ann{i}", "city": "Oslo", "plan": "pro"},
            }
            for i in range(kind.recipients)
        ]
        found.append(
            msgspec.json.encode(
                {
                    "from": f"news@{FROM_DOMAIN}",
                    "to": to,
                    "subject": "Hello {{ first_name }}",
                    "text": "News for your {{ plan }} plan in {{ city }}.\n",
                    "stream": "marketing" if kind.recipients > 1 else "transactional",
                }
            )
        )
    return found
