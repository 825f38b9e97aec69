"""Transcripts of a real dispatcher's sessions with the sink: what is in them, what is not, and what they cost who asks for none."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import asyncpg
import pytest

from gateway.app.exits import Exit
from gateway.cli import main
from gateway.dispatch.trace import BUFFER_LINES, Traces
from gateway.errors import Conflict, StoreUnavailable
from gateway.model.ids import Prefix, encode
from gateway.mta.wire import Timeouts, open_session
from gateway.store import traces
from gateway.store.traces import OPEN_MAX, Kind, Line, Seen
from tests.support.clock import FakeClock
from tests.support.fleet import BULK, TRANSACTIONAL, Fleet
from tests.support.scripted_smtp import OPENING, TAKEN, scripted
from tests.unit.dispatch.test_lane import leased

BEAT = {"dispatch": {"heartbeat_s": 0.1, "idle_connection_s": 60.0}}


async def ask(fleet: Fleet, kind: Kind, ref: int, seconds: float = 60.0) -> int:
    async with fleet.pool.acquire() as connection:
        request_id, _ = await traces.ask(connection, kind, ref, seconds)
    return request_id


async def lines_of(fleet: Fleet, request_id: int) -> list[Seen]:
    async with fleet.pool.acquire() as connection:
        return await traces.read(connection, request_id, {})


async def lines_with(fleet: Fleet, request_id: int, text: str, count: int = 1) -> list[Seen]:
    """The request's lines, once so many of them hold `text`."""
    found: list[Seen] = []

    async def there() -> bool:
        found[:] = await lines_of(fleet, request_id)
        return sum(text in line.text for line in found) >= count

    await fleet.until(f'"{text}" stands in the transcript', there)
    return found


def in_order(lines: list[Seen], *wanted: str) -> bool:
    said = iter(f"{line.direction} {line.text}" for line in lines)
    return all(any(line.startswith(start) for line in said) for start in wanted)


async def test_a_messages_transcript_goes_from_ehlo_to_the_reply_after_the_dot(
    db: str, tmp_path: Path
) -> None:
    async with Fleet(db, tmp_path, settings=BEAT) as fleet:
        request_id = await ask(fleet, Kind.MESSAGE, fleet.messages[TRANSACTIONAL])
        await fleet.start("here")
        others = await fleet.submit([f"other{i}@d.test" for i in range(5)], priority=BULK)
        (delivery,) = await fleet.submit(["ann@d.test"], priority=TRANSACTIONAL)
        await fleet.settled()
        lines = await lines_with(fleet, request_id, "delivered (ok)")
        text = "\n".join(f"{line.direction} {line.text}" for line in lines)
        assert in_order(
            lines, "* connecting to 127.0.0.1", "S 220", "C EHLO", "S 250", "C MAIL FROM:<", "C RCPT TO:<ann@d.test>", "C DATA", "S 250",
            "S 250", "S 354", "C [content, ", "C .", "S 250", "* delivered (ok)",
        ), text  # fmt: skip
        assert [line.at for line in lines] == sorted(line.at for line in lines)
        assert {line.delivery_id for line in lines} == {None, delivery}
        for absent in ("Subject", "Hello", "other", "DKIM"):
            assert absent not in text
        assert len(others) == 5


async def test_a_lanes_transcript_has_that_lane_alone_and_its_open_connections_too(
    db: str, tmp_path: Path
) -> None:
    async with Fleet(db, tmp_path, settings=BEAT) as fleet:
        await fleet.start("here")
        await fleet.submit(["before@seen.test", "before@unseen.test"])
        await fleet.settled()
        assert await fleet.rows("SELECT * FROM trace_line") == []
        async with fleet.pool.acquire() as connection:
            request_id = await ask(fleet, Kind.LANE, await traces.lane_of(connection, "seen.test"))
        await fleet.heartbeats(3)
        await fleet.submit(["after@seen.test", "after@unseen.test"])
        await fleet.settled()
        lines = await lines_with(fleet, request_id, "delivered (ok)")
        assert in_order(
            lines, "* this connection was open before", "C MAIL FROM", "C .", "S 250", "* delivered"
        )
        assert [line.text for line in lines if "RCPT" in line.text] == ["RCPT TO:<after@seen.test>"]


async def test_a_refusal_and_a_closed_door_are_shown_as_they_were_said(db: str, tmp_path: Path) -> None:
    async with Fleet(db, tmp_path, settings=BEAT, world='ehlo = "554 5.7.1 not you"\n') as fleet:
        (delivery,) = await fleet.submit(["ann@d.test"])
        request_id = await ask(fleet, Kind.DELIVERY, delivery)
        await fleet.start("here")
        lines = await lines_with(fleet, request_id, "no session: ")
        assert in_order(lines, "* connecting", "S 220", "C EHLO", "S 554 5.7.1 not you", "* no session: "), (
            lines
        )


async def test_a_session_has_no_tracer_when_nobody_asks(db: str, tmp_path: Path) -> None:
    watched = Traces(1, FakeClock())
    assert watched.opening(leased(1, 0.0)) is None
    async with Fleet(db, tmp_path, settings=BEAT) as fleet:
        request_id = await ask(fleet, Kind.DELIVERY, 1)
        await fleet.start("here")
        await fleet.submit(20)
        await fleet.settled()
        await fleet.heartbeats(2)
        assert await lines_of(fleet, request_id) == []


# -- bounds ----------------------------------------------------------------------------------------------------------


def line(request_id: int, text: str = "250 ok") -> Line:
    return Line(request_id, FakeClock().now(), 1, None, "S", text)


async def test_no_more_lines_are_kept_than_a_request_takes(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        pid = connection.get_server_pid()
        request_id, _ = await traces.ask(connection, Kind.LANE, 1, 60)
        await connection.execute("UPDATE trace_request SET lines_left = 5")
        async with (
            pool.acquire() as other,
            other.transaction(),
        ):  # two dispatchers at once: together they keep five
            await traces.write(other, 1, [line(request_id, f"a{i}") for i in range(3)])
            second = asyncio.create_task(
                traces.write(connection, 2, [line(request_id, f"b{i}") for i in range(4)])
            )
            while not await pool.fetchval("SELECT pg_blocking_pids($1) <> '{}'", pid):
                await asyncio.sleep(0)
        await second
        kept = await traces.read(connection, request_id, {})
        assert sorted(seen.text for seen in kept) == ["a0", "a1", "a2", "b0", "b1"]
        assert (await traces.remaining(connection, request_id))[1] == 0
        assert await traces.open_requests(connection) == []
        assert await traces.read(connection, request_id, {1: max(seen.id for seen in kept if seen.incarnation == 1)}) == [
            seen for seen in kept if seen.incarnation == 2
        ]  # fmt: skip


async def test_lines_for_a_request_that_is_gone_are_left_out(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        await traces.write(connection, 1, [line(99)])
        assert await connection.fetchval("SELECT count(*) FROM trace_line") == 0


async def test_so_many_may_ask_at_a_time_and_no_more(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        asked = [(await traces.ask(connection, Kind.LANE, i, 60))[0] for i in range(OPEN_MAX)]
        with pytest.raises(Conflict):
            await traces.ask(connection, Kind.LANE, 1, 60)
        await traces.end(connection, asked[0])
        await traces.ask(connection, Kind.LANE, 1, 60)


async def test_an_hour_after_its_end_a_request_goes_with_its_lines(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        old, _ = await traces.ask(connection, Kind.LANE, 1, 60)
        new, _ = await traces.ask(connection, Kind.LANE, 1, 60)
        await traces.write(connection, 1, [line(old), line(new)])
        await connection.execute("UPDATE trace_request SET asked_at = asked_at - interval '62 minutes', "
                                 "until_at = until_at - interval '62 minutes' WHERE id = $1", old)  # fmt: skip
        assert await traces.reap(connection) == 1
        assert await connection.fetchval("SELECT array_agg(request_id) FROM trace_line") == [new]


async def test_a_sites_key_reaches_no_transcript_and_a_dispatcher_does(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE gateway_dispatch")
        request_id, _ = await traces.ask(connection, Kind.LANE, 1, 60)
        await traces.write(connection, 1, [line(request_id)])
        assert len(await traces.read(connection, request_id, {})) == 1
        await traces.end(connection, request_id)
        await traces.reap(connection)
        await connection.execute("SET LOCAL ROLE gateway_api")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await traces.read(connection, request_id, {})


async def test_what_waits_for_postgres_is_bounded_and_what_was_lost_is_told(
    pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Traces(1, FakeClock())
    async with pool.acquire() as connection:
        asked = [(await traces.ask(connection, Kind.LANE, 1, 60))[0] for _ in range(2)]
        await watched.exchange(connection)
        tracer = watched.opening(leased(1, 0.0))
        assert tracer is not None
        for _ in range(BUFFER_LINES):
            tracer("S", b"250 ok")
        await watched.exchange(connection)  # half of the two requests' lines found room
        counts = await connection.fetch(
            "SELECT count(*) AS n, max(line) FILTER (WHERE direction = '*') AS told FROM trace_line GROUP BY request_id"
        )
        assert [row["n"] for row in counts] == [BUFFER_LINES // 2 + 1] * 2
        assert {row["told"] for row in counts} == {
            f"lines missing here: {BUFFER_LINES // 2} (Postgres did not take them in time)"
        }

        async def away(*_: object) -> None:
            raise StoreUnavailable("away")

        tracer("S", b"lost")
        with monkeypatch.context() as patched:
            patched.setattr(traces, "write", away)
            with pytest.raises(StoreUnavailable):
                await watched.exchange(connection)
        await watched.exchange(connection)
        for request_id in asked:
            told = [seen.text for seen in await traces.read(connection, request_id, {})]
            assert "lines missing here: 1 (Postgres did not take them in time)" in told
            assert "lost" not in told


async def test_a_request_ends_here_by_its_time_when_postgres_cannot_say_so(pool: asyncpg.Pool) -> None:
    clock = FakeClock()
    watched = Traces(1, clock)
    async with pool.acquire() as connection:
        await traces.ask(connection, Kind.LANE, 1, 60)
        await watched.exchange(connection)
    watched.expire()
    assert watched.wanted
    clock.skip(61.0)
    watched.expire()
    assert not watched.wanted


async def test_a_session_loses_its_tracer_when_nobody_asks_any_more(pool: asyncpg.Pool) -> None:
    watched = Traces(1, FakeClock())
    async with pool.acquire() as connection, scripted([*OPENING, *TAKEN]) as server:
        request_id, _ = await traces.ask(connection, Kind.DELIVERY, 2, 60)
        await watched.exchange(connection)
        opener, other = leased(1, 0.0), leased(2, 0.0)
        session = await open_session(
            "127.0.0.1", server.port, "out.example", Timeouts(), trace=watched.opening(opener)
        )
        watched.begin(session, opener)
        watched.done(session)
        watched.begin(session, other)  # the second on this connection: its transcript has the greeting too
        watched.done(session)
        await traces.end(connection, request_id)
        await watched.exchange(connection)
        assert session.trace is not None
        watched.begin(session, other)
        assert session.trace is None
        session.abort()
        said = [seen.text for seen in await traces.read(connection, request_id, {})]
        assert "EHLO out.example" in said


# -- the command -----------------------------------------------------------------------------------------------------


async def test_the_command_shows_lines_as_they_come(
    db: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_DSN", db)
    async with Fleet(db, tmp_path, settings=BEAT) as fleet:
        await fleet.start("here")
        await fleet.submit(["before@d.test"])
        await fleet.settled()
        command = asyncio.create_task(asyncio.to_thread(main, ["trace", "--lane", "D.test", "--json"]))

        async def asked() -> object:
            return await fleet.rows("SELECT id FROM trace_request")

        await fleet.until("it has asked", asked)
        await fleet.heartbeats(3)
        (delivery,) = await fleet.submit(["ann@d.test"])
        await fleet.settled()
        await lines_with(fleet, 1, "delivered (ok)")
        async with fleet.pool.acquire() as connection:
            await traces.end(connection, 1)
        assert await command == Exit.OK
        shown = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
        of_it = [row for row in shown if row["delivery"] == encode(Prefix.DELIVERY, delivery)]
        assert [row["line"].split(":")[0].split(",")[0] for row in of_it if row["direction"] == "C"] == [
            "MAIL FROM", "RCPT TO", "DATA", "[content", ".",
        ]  # fmt: skip
        assert of_it[-1]["line"].startswith("delivered (ok)")
        assert [row["at"] for row in shown] == sorted(row["at"] for row in shown)
        assert {(row["incarnation"], row["connection"]) for row in shown} == {(1, 1)}


async def test_ctrl_c_ends_the_request(db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_DSN", db)
    async with Fleet(db, tmp_path, settings=BEAT) as fleet:
        await fleet.start("here")
        await fleet.submit(["before@d.test"])
        await fleet.settled()
        command = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway.cli", "trace", "--lane", "d.test", stdout=asyncio.subprocess.PIPE
        )
        assert command.stdout is not None
        assert b"deleted an hour after" in await command.stdout.readline()
        command.send_signal(signal.SIGINT)
        await command.communicate()
        assert await fleet.rows("SELECT id FROM trace_request WHERE until_at > clock_timestamp()") == []
        assert command.returncode == 130
