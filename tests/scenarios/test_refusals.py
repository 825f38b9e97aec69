"""Receivers that say no: not now, not so fast, nobody here. Each answer has its own consequence, and only for whom it concerns."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fleet import BULK, TRANSACTIONAL, Fleet

CLOSED_DOOR = 'ehlo = "554 5.7.1 not you"\n'


async def test_greylisted_mail_is_delivered_at_its_second_or_third_try(db: str, tmp_path: Path) -> None:
    async with Fleet(db, tmp_path) as fleet:
        once = await fleet.submit(f"grey1.u{i}@d{i % 3}.test" for i in range(12))
        twice = await fleet.submit(f"grey2.u{i}@d{i % 3}.test" for i in range(12))
        others = await fleet.submit(50, domains=3)
        await fleet.start("here")
        await fleet.settled()
        findings = await fleet.check()
        assert findings.duplicates == ()
        assert fleet.ledger().refused == {451: 12 + 2 * 12}
        tries = {
            row["id"]: row["attempts"]
            for row in await fleet.rows("SELECT id, attempts FROM ended WHERE state = 'delivered'")
        }
        assert tries == dict.fromkeys(once, 2) | dict.fromkeys(twice, 3) | dict.fromkeys(others, 1)


async def test_a_421_makes_its_lane_wait_and_no_other(db: str, tmp_path: Path) -> None:
    settings = {"retry": {"rate_s": [1.0]}}
    async with Fleet(db, tmp_path, settings=settings) as fleet:
        # Urgent, so that they leave first; nothing else leaves the lane after the refusal.
        refused = await fleet.submit(["rate421.u@busy.test"], priority=TRANSACTIONAL)
        behind = await fleet.submit((f"u{i}@busy.test" for i in range(100)), priority=BULK)
        await fleet.start("here")
        await fleet.until("the lane was refused", lambda: fleet.ledger().refused.get(421))

        async def suspended() -> bool:
            rows = await fleet.rows(
                "SELECT l.name FROM lane_state s JOIN lane l ON l.id = s.lane_id "
                "WHERE s.suspended_until > clock_timestamp() AND s.suspended_why LIKE '%too many messages%'"
            )
            return [row["name"] for row in rows] == ["busy.test"]

        await fleet.until("its lane waits", suspended)
        others = await fleet.submit((f"u{i}@calm{i % 4}.test" for i in range(40)), priority=BULK)

        async def others_delivered() -> bool:
            return await fleet.ids_in("delivered") >= set(others)

        await fleet.until("the other lanes are done", others_delivered)
        await fleet.settled()
        findings = await fleet.check()
        assert findings.duplicates == ()
        assert await fleet.ids_in("delivered") == {*refused, *behind, *others}
        # A 421 speaks of the lane: it counts for no delivery, whoever met it.
        assert await fleet.rows("SELECT id FROM ended WHERE attempts <> 1") == []


async def test_an_unknown_user_bounces_is_suppressed_and_leaves_all_lists(db: str, tmp_path: Path) -> None:
    async with Fleet(db, tmp_path) as fleet:
        for name in ("unknown.ann", "bob"):
            await fleet.rows(
                "WITH c AS (INSERT INTO contact (site_id, email, domain) VALUES ($1, $2, 'd.test') RETURNING id), "
                "l AS (INSERT INTO list (site_id, name) SELECT $1, 'list of ' || $2 || n FROM generate_series(1, 2) n RETURNING id) "
                "INSERT INTO list_member (list_id, contact_id, site_id) SELECT l.id, c.id, $1 FROM c, l",
                fleet.site_id, f"{name}@d.test",
            )  # fmt: skip
        gone = await fleet.submit(["unknown.ann@d.test"])
        policy = await fleet.submit(["policy.carl@d.test"])
        known = await fleet.submit(["bob@d.test"])
        await fleet.start("here")
        await fleet.settled()
        assert await fleet.ids_in("bounced") == {*gone, *policy}
        assert await fleet.ids_in("delivered") == set(known)
        listed = await fleet.rows("SELECT email_key, reason FROM suppression")
        assert [tuple(row.values()) for row in listed] == [("unknown.ann@d.test", "hard_bounce")]
        members = await fleet.rows(
            "SELECT email_key, count(*) AS lists FROM list_member JOIN contact c ON c.id = contact_id GROUP BY 1"
        )
        assert [tuple(row.values()) for row in members] == [("bob@d.test", 2)]

        # From now on nothing leaves for that address, not even transactional mail.
        again = await fleet.submit(["Unknown.Ann@d.test"], priority=TRANSACTIONAL)
        assert await fleet.ids_in("suppressed") == set(again)
        assert fleet.ledger().refused == {550: 1, 554: 1}
        await fleet.check()


@pytest.mark.parametrize("dies", [False, True], ids=["by itself", "by the rescuer of a killed dispatcher"])
async def test_a_rule_of_the_operator_says_what_a_refusal_means(db: str, tmp_path: Path, dies: bool) -> None:
    rule = "[[rule]]\npattern = '^'\ncodes = [554]\nclass = 'invalid'\nwhy = 'as this receiver means it'\n"
    async with Fleet(db, tmp_path) as fleet:
        bounces = fleet.state_dir("here").with_name("bounces.toml")  # beside the configuration
        bounces.parent.mkdir(parents=True, exist_ok=True)
        bounces.write_text(rule)
        (refused,) = await fleet.submit(["policy.carl@d.test"])
        if dies:
            first = await fleet.start("here", "--die-at", "answered:1")
            assert await first.ended() == -9
        await fleet.start("here")
        await fleet.settled()
        assert await fleet.ids_in("bounced") == {refused}
        listed = await fleet.rows("SELECT email_key, reason FROM suppression")
        assert [tuple(row.values()) for row in listed] == [("policy.carl@d.test", "hard_bounce")]
        assert fleet.ledger().refused == {554: 1}
        await fleet.check()


async def test_a_suppression_that_comes_while_mail_waits_stops_it(db: str, tmp_path: Path) -> None:
    settings = {"retry": {"greylist_s": [0.5]}}
    async with Fleet(db, tmp_path, settings=settings) as fleet:
        (waiting,) = await fleet.submit(["grey1.ann@d.test"])
        await fleet.start("here")

        async def deferred() -> bool:
            return await fleet.ids_in("deferred") == {waiting}

        await fleet.until("it waits for its second try", deferred)
        await fleet.rows(
            "INSERT INTO suppression (site_id, email_key, scope, reason, evidence) VALUES ($1, 'grey1.ann@d.test', 'marketing', 'complaint', '')",
            fleet.site_id,
        )  # fmt: skip
        await fleet.settled()
        await fleet.check()
        assert await fleet.ids_in("suppressed") == {waiting}
        assert fleet.ledger().accepts == 0


async def test_a_closed_door_bounces_nobody_even_when_the_dispatcher_dies_of_it(
    db: str, tmp_path: Path
) -> None:
    async with Fleet(db, tmp_path, world=CLOSED_DOOR) as fleet:
        await fleet.submit(40, domains=4)
        first = await fleet.start("here", "--die-at", "acknowledging:1")
        assert await first.ended() == -9
        second = await fleet.start("here")

        async def taken_over_and_refused_again() -> bool:
            closed = await fleet.rows("SELECT id FROM incarnation WHERE id = 1 AND status = 'closed'")
            return bool(closed) and "lane.suspended" in second.said

        await fleet.until("its successor met the same door", taken_over_and_refused_again)
        states = await fleet.states()
        assert not states.keys() - {"queued", "leased", "deferred"}, states
        assert await fleet.rows("SELECT id FROM queue WHERE attempts > 0") == []
        await fleet.check()
