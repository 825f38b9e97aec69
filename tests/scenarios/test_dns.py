"""F22, F23, F24: what DNS says decides where mail goes, who bounces and who waits; a slow name server holds up its own domain alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.dns import Fails, Held, ScriptedDns, scripted_dns
from tests.support.fleet import Fleet


@pytest.fixture
async def dns() -> AsyncIterator[ScriptedDns]:
    async with scripted_dns() as server:
        server.put("mx.good.test", "A", "127.0.0.1")
        server.put("good.test", "MX", "10 mx.good.test.")
        yield server


def through(fleet: Fleet, dns: ScriptedDns) -> Fleet:
    fleet.configure("route", default="")
    fleet.configure(
        "mx",
        nameservers=[dns.nameserver],
        allow_networks=["127.0.0.0/8"],
        port=fleet.sink.port,
        timeout_s=2.0,
    )
    return fleet


async def ended(fleet: Fleet, state: str) -> dict[str, tuple[str, str]]:
    rows = await fleet.rows(
        "SELECT recipient, enhanced, reply FROM ended WHERE state = $1::text::delivery_state", state
    )
    return {row["recipient"]: (row["enhanced"], row["reply"]) for row in rows}


async def test_mail_goes_to_the_mx_to_the_next_one_and_to_a_bare_address(
    db: str, tmp_path: Path, dns: ScriptedDns
) -> None:
    dns.put("closed.test", "A", "127.0.0.9")  # nobody listens there
    dns.put("two.test", "MX", "10 closed.test.", "20 mx.good.test.")
    dns.put("bare.test", "A", "127.0.0.1")
    async with Fleet(db, tmp_path) as fleet:
        ids = await fleet.submit(
            f"u{i}@{domain}" for domain in ("good.test", "two.test", "bare.test") for i in range(5)
        )
        await through(fleet, dns).start("here")
        await fleet.settled()
        assert (await fleet.check()).duplicates == ()
        assert await fleet.ids_in("delivered") == set(ids)


async def test_a_domain_that_takes_no_mail_bounces_and_one_that_cannot_be_asked_waits(
    db: str, tmp_path: Path, dns: ScriptedDns
) -> None:
    dns.put("null.test", "MX", "0 .")
    dns.behaviours["broken.test"] = Fails("SERVFAIL")
    dns.put("inside.test", "MX", "10 mx.inside.test.")
    dns.put("mx.inside.test", "A", "10.0.0.1")
    async with Fleet(db, tmp_path) as fleet:
        await fleet.submit(["a@null.test", "b@null.test", "a@gone.test", "a@good.test"])
        await fleet.submit(["a@broken.test", "a@inside.test"])
        await through(fleet, dns).start("here")

        async def judged() -> bool:
            return len(await ended(fleet, "bounced")) == 3 and len(await ended(fleet, "delivered")) == 1

        await fleet.until("those that can be judged are", judged)
        bounced = await ended(fleet, "bounced")
        assert {who: enhanced for who, (enhanced, _) in bounced.items()} == {
            "a@null.test": "5.1.10", "b@null.test": "5.1.10", "a@gone.test": "5.1.2",
        }  # fmt: skip
        assert {row["email_key"] for row in await fleet.rows("SELECT email_key FROM suppression")} == set(
            bounced
        )

        async def told() -> bool:
            rows = await fleet.rows("SELECT recipient, last_reply FROM queue WHERE last_reply IS NOT NULL")
            return {row["recipient"] for row in rows} == {"a@broken.test", "a@inside.test"}

        await fleet.until("the others say why they wait", told)
        waits = {
            r["recipient"]: r["last_reply"]
            for r in await fleet.rows("SELECT recipient, last_reply FROM queue")
        }
        assert "DNS" in waits["a@broken.test"]
        assert "10.0.0.1" in waits["a@inside.test"]
        assert "allow_networks" in waits["a@inside.test"]
        await fleet.check(settled=False)


async def test_who_must_not_be_written_to_is_suppressed_and_not_bounced_by_dns(
    db: str, tmp_path: Path, dns: ScriptedDns
) -> None:
    dns.put("null.test", "MX", "0 .")
    async with Fleet(db, tmp_path) as fleet:
        opted_out, written_to = await fleet.submit(["a@null.test", "b@null.test"])
        await fleet.rows(
            "INSERT INTO suppression (site_id, email_key, scope, reason) VALUES ($1, 'a@null.test', 'marketing', 'unsubscribe')",
            fleet.site_id,
        )
        await through(fleet, dns).start("here")
        await fleet.settled()
        assert await fleet.ids_in("suppressed") == {opted_out}
        assert await fleet.ids_in("bounced") == {written_to}
        await fleet.check()


async def test_a_name_server_that_takes_its_time_for_one_domain_holds_up_no_other(
    db: str, tmp_path: Path, dns: ScriptedDns
) -> None:
    held = dns.behaviours["slow.test"] = Held()
    dns.put("slow.test", "MX", "10 mx.good.test.")
    async with Fleet(db, tmp_path) as fleet:
        slow = await fleet.submit(f"u{i}@slow.test" for i in range(50))
        through(fleet, dns).configure("mx", timeout_s=60.0)
        await fleet.start("here")
        await dns.until_asked("slow.test", "MX")
        others = await fleet.submit(f"u{i}@good.test" for i in range(200))

        async def others_delivered() -> bool:
            return await fleet.ids_in("delivered") == set(others)

        await fleet.until("the others are done", others_delivered)
        held.released.set()
        await fleet.settled()
        await fleet.check()
        assert await fleet.ids_in("delivered") == {*slow, *others}
