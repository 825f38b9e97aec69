"""F15, F19, F20: what receivers say in the wrong place, without end, or in no letters. It harms only whom it concerns, and is kept as text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from gateway.mta.channel import REPLY_LIMIT_BYTES
from tests.support.fleet import BULK, TRANSACTIONAL, Fleet
from tests.support.scripted_smtp import (
    OPENING,
    TAKEN,
    Close,
    Endless,
    Relay,
    ScriptedServer,
    Step,
    Until,
    scripted,
)

GOING = b"421 4.3.2 going down\r\n"
PIPELINE_ENDS: dict[str, bytes] = {
    "mail.test": GOING,
    "rcpt.test": b"250 2.1.0 ok\r\n" + GOING,
    "data.test": b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n" + GOING,
    "gone.test": b"250 2.1.0 ok\r\n550 5.1.1 no such user\r\n" + GOING,
}
"""What is said of the fourth recipient's pipeline, by domain; all of it in one packet."""

IN_THE_PIPELINE: tuple[Step, ...] = (*OPENING, Until(b"DATA\r\n"))
WITHOUT_END: dict[str, list[Step]] = {
    "banner.test": [Endless(b"220-more\r\n")],
    "line.test": [b"220-", Endless(b"x" * 1_000)],
    "mail.test": [*IN_THE_PIPELINE, Endless(b"250-more\r\n")],
    "dot.test": [*OPENING, *TAKEN, b"250-", Endless(b"x" * 1_000)],
}
NO_TEXT: dict[str, list[Step]] = {
    "door.test": [b"554 5.7.1 n\xf6 \x00 entry\r\n", Close()],
    "later.test": [
        *IN_THE_PIPELINE,
        b"250 ok\r\n451 4.7.1 wait\x00 \xff\xfe \x1b[2Jplease\r\n503 no\r\n",
        Close(),
    ],
    "gone.test": [
        *IN_THE_PIPELINE,
        b"250 ok\r\n550 5.1.1 who\x00 is \xf0\x28\x8c\xbc\r\n503 no\r\n",
        Close(),
    ],
    "dot.test": [*OPENING, *TAKEN, b"\x00\xff\xfe\r\n"],
}


@asynccontextmanager
async def receivers(
    fleet: Fleet, scripts: Mapping[str, Sequence[Sequence[Step]]]
) -> AsyncIterator[dict[str, ScriptedServer]]:
    """A receiver for each of these domains."""
    async with AsyncExitStack() as stack:
        servers: dict[str, ScriptedServer] = {}
        for domain, own in scripts.items():
            servers[domain] = await stack.enter_async_context(scripted(*own))
            fleet.route(domain, servers[domain].port)
        yield servers


async def test_a_421_in_the_middle_of_a_pipeline_defers_what_it_left_open_and_nothing_else(
    db: str, tmp_path: Path
) -> None:
    settings = {"dispatch": {"connections_per_lane": 1}}
    async with Fleet(db, tmp_path, settings=settings) as fleet:
        relay = Relay(fleet.sink.port)
        scripts = {
            domain: ([Relay(fleet.sink.port, until=b"RCPT TO:<u3@"), said, Close()], [relay])
            for domain, said in PIPELINE_ENDS.items()
        }
        async with receivers(fleet, scripts) as servers:
            ids = {domain: await fleet.submit(f"u{i}@{domain}" for i in range(10)) for domain in servers}
            others = await fleet.submit(50, domains=5)
            await fleet.start("here")
            await fleet.settled()
            assert (await fleet.check()).duplicates == ()
            refused = ids["gone.test"][3]
            assert await fleet.ids_in("bounced") == {refused}, "its 550 had been said"
            everybody = {id_ for some in ids.values() for id_ in some}
            assert await fleet.ids_in("delivered") == {*everybody, *others} - {refused}
            assert await fleet.ever_in_doubt() == set()
            assert await fleet.rows("SELECT id FROM ended WHERE attempts <> 1") == [], "a 421 is the lane's"
            for domain, server in servers.items():
                whole = b"".join(server.heard)
                tries = [whole.count(b"RCPT TO:<u%d@" % i) for i in range(10)]
                again = 1 if domain == "gone.test" else 2
                assert tries == [1, 1, 1, again, 1, 1, 1, 1, 1, 1], (
                    f"{domain}: only the open one is tried again"
                )


async def test_a_reply_without_end_is_cut_short_and_its_delivery_deferred(db: str, tmp_path: Path) -> None:
    async with (
        Fleet(db, tmp_path) as fleet,
        receivers(fleet, {domain: [script] for domain, script in WITHOUT_END.items()}) as servers,
    ):
        ids = {domain: await fleet.submit([f"u@{domain}"], priority=TRANSACTIONAL) for domain in servers}
        await fleet.start("here")

        async def tried_again() -> bool:
            return all(len(server.heard) >= 2 for server in servers.values())

        await fleet.until("all were left, and tried again", tried_again)
        others = await fleet.submit(50, domains=5)

        async def others_delivered() -> bool:
            return await fleet.ids_in("delivered") == set(others)

        await fleet.until("the others are delivered", others_delivered)
        said = {
            row["recipient"]: row["last_reply"]
            for row in await fleet.rows("SELECT recipient, last_reply FROM queue")
        }
        assert said == {
            f"u@{name}.test": f"4.5.0 malformed reply at {stage}: a reply longer than {REPLY_LIMIT_BYTES} octets"
            for name, stage in (
                ("banner", "banner"),
                ("line", "banner"),
                ("mail", "mail"),
                ("dot", "dot"),
            )
        }
        assert await fleet.ever_in_doubt() == set(ids["dot.test"]), "all of it had left there"
        for server in servers.values():
            server.later = [Relay(fleet.sink.port)]
        await fleet.settled()
        assert (await fleet.check()).duplicates == ()
        assert await fleet.ids_in("delivered") == {
            *others,
            *(id_ for some in ids.values() for id_ in some),
        }


async def test_a_reply_that_is_no_text_is_kept_and_shown_as_text(db: str, tmp_path: Path) -> None:
    async with Fleet(db, tmp_path) as fleet:
        message = fleet.messages[TRANSACTIONAL]
        async with receivers(fleet, {domain: [script] for domain, script in NO_TEXT.items()}) as servers:
            ids = {domain: await fleet.submit([f"u@{domain}"], priority=TRANSACTIONAL) for domain in servers}
            await fleet.start("here")
            others = await fleet.submit(50, domains=5, priority=BULK)

            async def told() -> bool:
                waiting = await fleet.rows("SELECT FROM queue WHERE last_reply IS NOT NULL")
                return len(waiting) == 3 and await fleet.ids_in("bounced") == set(ids["gone.test"])

            await fleet.until("all were answered", told)
            replies = {to: delivery["reply"] for to, delivery in (await fleet.shown(message)).items()}
            assert replies == {
                "u@door.test": r"n\xf6 \x00 entry",
                "u@later.test": r"wait\x00 \xff\xfe \x1b[2Jplease",
                "u@gone.test": r"who\x00 is \xf0(\x8c\xbc",
                "u@dot.test": r"4.5.0 malformed reply at dot: reply begins with b'\x00\xff\xfe'; expected a code from 200 to 599 and a space",
            }
            assert await fleet.lane_says("door.test") == r"n\xf6 \x00 entry"
            for server in servers.values():
                server.later = [Relay(fleet.sink.port)]
            await fleet.settled()
            assert (await fleet.check()).duplicates == ()
            assert await fleet.ids_in("bounced") == set(ids["gone.test"])
            assert await fleet.ids_in("delivered") == {
                *others, *ids["door.test"], *ids["later.test"], *ids["dot.test"],
            }  # fmt: skip
            happened = (await fleet.shown(message))["u@later.test"]["events"]
            assert any(r"\x1b[2Jplease" in (one["reply"] or "") for one in happened), (
                "and its history says so still"
            )
