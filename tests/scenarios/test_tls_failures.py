"""F21: TLS was offered and does not come about. What becomes of the mail is the policy's word; under `require` nothing goes in plaintext."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from tests.support.certificate import server_context
from tests.support.fleet import Fleet
from tests.support.scripted_smtp import (
    OPENING,
    Close,
    Relay,
    Reset,
    ScriptedServer,
    StartTls,
    Step,
    Until,
    scripted,
)
from tests.support.zoo import STARTTLS_OFFERED

GO = b"220 2.0.0 go\r\n"
BROKEN: dict[str, Sequence[Step]] = {
    "garbage.test": (*STARTTLS_OFFERED, GO, Until(b"\x16"), b"this is no TLS\r\n"),
    "closed.test": (*STARTTLS_OFFERED, GO, Until(b"\x16"), Close()),
    "reset.test": (*STARTTLS_OFFERED, GO, Until(b"\x16"), Reset()),
    "silent.test": (*STARTTLS_OFFERED, GO, Until(b"never said")),
}
INJECTED = b"250-mx.example\r\n250 PIPELINING\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n"
"""Replies that somebody on the way puts behind the 220, for the time after the handshake (RFC 3207 §6)."""


async def serve(stack: AsyncExitStack, fleet: Fleet, domain: str, *scripts: Sequence[Step]) -> ScriptedServer:
    server = await stack.enter_async_context(scripted(*scripts))
    fleet.route(domain, server.port)
    return server


async def test_opportunistic_goes_on_in_plaintext_at_once_and_no_lane_waits(db: str, tmp_path: Path) -> None:
    settings = {"dispatch": {"tls": "opportunistic", "connections_per_lane": 1, "connect_timeout_s": 0.5}}
    async with Fleet(db, tmp_path, settings=settings) as fleet, AsyncExitStack() as stack:
        servers = [
            await serve(stack, fleet, domain, script, [Relay(fleet.sink.port)])
            for domain, script in BROKEN.items()
        ]
        ids = await fleet.submit(f"u{i}@{domain}" for domain in BROKEN for i in range(5))
        others = await fleet.submit(50, domains=5)
        await fleet.start("here")
        await fleet.settled()
        assert (await fleet.check()).duplicates == ()
        assert await fleet.ids_in("delivered") == {*ids, *others}
        assert await fleet.rows("SELECT id FROM ended WHERE attempts <> 1") == []
        assert await fleet.rows("SELECT lane_id FROM lane_state WHERE suspended_why <> ''") == []
        assert [len(server.heard) for server in servers] == [2] * len(servers), "one more connection each"
        assert not any(b"MAIL" in server.heard[0] for server in servers)


async def test_required_tls_waits_and_nothing_is_ever_said_in_plaintext(db: str, tmp_path: Path) -> None:
    settings = {"dispatch": {"tls": "require", "connections_per_lane": 1, "connect_timeout_s": 0.5}}
    async with Fleet(db, tmp_path, settings=settings) as fleet, AsyncExitStack() as stack:
        under_tls: Sequence[Step] = (
            *STARTTLS_OFFERED, GO, StartTls(server_context()), Relay(fleet.sink.port, greeted=True),
        )  # fmt: skip
        refused: Sequence[Step] = (*STARTTLS_OFFERED, b"454 4.7.0 not now\r\n")
        injected: Sequence[Step] = (*STARTTLS_OFFERED, GO + INJECTED, StartTls(server_context()))
        scripts = BROKEN | {"refused.test": refused, "never.test": OPENING, "injected.test": injected}
        servers = {domain: await serve(stack, fleet, domain, script) for domain, script in scripts.items()}
        await serve(stack, fleet, "good.test", under_tls)
        waiting = await fleet.submit(f"u{i}@{domain}" for domain in servers for i in range(3))
        good = await fleet.submit(f"u{i}@good.test" for i in range(20))
        await fleet.start("here")

        async def good_delivered() -> bool:
            return await fleet.ids_in("delivered") == set(good)

        await fleet.until("who has TLS has got its mail", good_delivered)
        await fleet.until("all were tried twice", lambda: all(len(s.heard) >= 2 for s in servers.values()))
        why = {domain: await fleet.lane_says(domain) for domain in servers}
        assert why.pop("never.test") == "TLS required but not offered at starttls"
        assert why.pop("injected.test").startswith("malformed reply at starttls: ")
        assert all(text.startswith("TLS handshake failed at starttls: ") for text in why.values()), why
        assert not any(b"MAIL" in heard for server in servers.values() for heard in server.heard)
        assert await fleet.ids_in("delivered") == set(good)

        for server in servers.values():
            server.later = under_tls
        await fleet.settled()
        assert (await fleet.check()).duplicates == ()
        assert await fleet.ids_in("delivered") == {*waiting, *good}
        assert not any(b"MAIL" in heard for server in servers.values() for heard in server.heard[:2])


async def test_replies_put_in_before_the_handshake_end_the_session_and_plaintext_is_no_way_out(
    db: str, tmp_path: Path
) -> None:
    async with Fleet(db, tmp_path) as fleet, AsyncExitStack() as stack:
        script: Sequence[Step] = (*STARTTLS_OFFERED, GO + INJECTED, StartTls(server_context()))
        server = await serve(stack, fleet, "injected.test", script)
        ids = await fleet.submit(["u@injected.test"])
        others = await fleet.submit(20, domains=4)
        await fleet.start("here")
        await fleet.until("it was tried twice", lambda: len(server.heard) >= 2)
        assert not any(b"MAIL" in heard for heard in server.heard)
        server.later = [Relay(fleet.sink.port)]
        await fleet.settled()
        assert (await fleet.check()).duplicates == ()
        assert await fleet.ids_in("delivered") == {*ids, *others}
        assert not any(b"MAIL" in heard for heard in server.heard[:2])
