"""What a restored database must not do again."""

from __future__ import annotations

import asyncpg

from gateway.store import fleet


async def test_after_a_restore_no_number_is_given_out_a_second_time(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        await connection.execute("set role gateway_dispatch")
        accepted = await connection.fetchval("select nextval('acceptance_id')")
        incarnation = await fleet.register(connection, "host", 1)
        await fleet.hold_fleet(connection, "restored", 7)
        ahead = await connection.fetchval("select nextval('acceptance_id')")
        assert ahead - accepted > fleet.NUMBERS_LEFT_OUT
        assert await fleet.register(connection, "host", 2) - incarnation > 1_000
        # The second dispatcher to notice changes nothing: the numbers in between may be in use by now.
        await fleet.hold_fleet(connection, "restored, says another", 7)
        assert await connection.fetchval("select nextval('acceptance_id')") == ahead + 1
