"""F29: one site queues very many, another ten, for the same domain, through real dispatchers: the small one is done in its share.

The order is the sink's: what it took before the small site's last, whoever sent it.
"""

from __future__ import annotations

from pathlib import Path

from gateway.throttle.shaping import Limits
from tests.support.accept import accept
from tests.support.fleet import BULK, Fleet

GRANT = 20


async def test_the_small_site_is_done_within_twice_its_share_and_what_was_in_hand(
    db: str, tmp_path: Path
) -> None:
    limits = Limits(rate_per_s=400.0, burst=10, max_connections=4)
    settings = {
        "dispatch": {"in_flight": 40, "claim_rows": GRANT, "urgent_reserve": 5, "connections_per_lane": 2}
    }
    async with Fleet(db, tmp_path, settings=settings, limits=limits) as fleet:
        large = await fleet.submit([f"l{i}@big.test" for i in range(3_000)])
        for host in ("one", "two"):
            await fleet.start(host)
        await fleet.taken(200)
        other_site = await fleet.pool.fetchval("INSERT INTO site (name) VALUES ('small') RETURNING id")
        message = await fleet.pool.fetchval(
            "INSERT INTO message SELECT (json_populate_record(m, json_build_object('id', nextval('acceptance_id'), 'site_id', $1::int))).* "
            "FROM message m WHERE stream = 'marketing' RETURNING id", other_site,
        )  # fmt: skip
        async with fleet.pool.acquire() as connection:
            small, flows = await accept(
                connection, other_site, message, BULK, [f"s{i}@big.test" for i in range(10)], limits=limits
            )
            before = fleet.ledger().accepts
            await connection.execute("SELECT wake($1, $2)", list(flows), list(flows.values()))
        fleet.submitted += small

        async def small_done() -> bool:
            return (
                await fleet.pool.fetchval("SELECT count(*) FROM ended WHERE site_id = $1", other_site) == 10
            )

        await fleet.until("the small site is done", small_done)
        between = fleet.ledger().accepts - before
        # In both dispatchers' hands when it came: up to 40 each; then half of every grant is the small site's.
        assert between <= 2 * 40 + 2 * 10 + 2 * GRANT + 100, (
            "and what the sink took until the answer was seen"
        )
        assert len(await fleet.ids_in("queued") & set(large)) > 1_500
        await fleet.check(settled=False)
