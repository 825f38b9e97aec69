"""Accepting deliveries the short way: the functions that the gateway's door calls, without the door."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gateway.store.pool import Connection
from gateway.throttle.shaping import Limits

DAY_S = 86_400.0

UNLIMITED = Limits(rate_per_s=100_000.0, burst=10_000, max_connections=1_000)
"""Limits under which a scenario is about faults and not about rates."""


async def accept(
    connection: Connection,
    site_id: int,
    message_id: int,
    priority: int,
    recipients: list[str],
    *,
    expires_s: float = DAY_S,
    limits: Limits = UNLIMITED,
) -> tuple[list[int], dict[int, int]]:
    """Accept deliveries as the gateway's door does, in one transaction, not yet woken; their ids, and flow → lowest id."""
    names = [recipient.rpartition("@")[2] for recipient in recipients]
    wanted = sorted(set(names))
    count = len(wanted)
    lanes = {
        row["domain"]: row["lane_id"]
        for row in await connection.fetch(
            "SELECT domain, lane_id FROM ensure_lanes($1, $2, $3, $4)",
            wanted, [limits.rate_per_s] * count, [float(limits.burst)] * count, [limits.max_connections] * count,
        )
    }  # fmt: skip
    flows = {
        row["lane_id"]: row["flow_id"]
        for row in await connection.fetch(
            "SELECT lane_id, flow_id FROM ensure_flows($1, $2::smallint, $3, 0)", list(lanes.values()), priority, site_id
        )
    }  # fmt: skip
    number = await connection.fetchval("SELECT nextval('acceptance_id')")
    ids = [number * 1024 + place for place in range(len(recipients))]
    now = datetime.now(UTC)
    total = len(ids)
    await connection.execute(
        "SELECT accept_deliveries($1, 0, $2::smallint, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        site_id, priority, now, ids, [message_id] * total, recipients, [None] * total,
        [lanes[name] for name in names], [flows[lanes[name]] for name in names],
        [now] * total, [now + timedelta(seconds=expires_s)] * total,
    )  # fmt: skip
    lowest: dict[int, int] = {}
    for delivery_id, name in zip(ids, names, strict=True):
        lowest.setdefault(flows[lanes[name]], delivery_id)
    return ids, lowest
