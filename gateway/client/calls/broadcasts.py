"""`/v1/broadcasts` as calls. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gateway.client.bodies import BroadcastChange, NewBroadcast
from gateway.client.call import PAGE_SIZE, Call, Page, Pages, Stream, at, body_of, given, query_of, time_of
from gateway.client.results import Accepted, Broadcast, BroadcastDelivery, BroadcastStats, Estimate


def create(broadcast: NewBroadcast, *, idempotency_key: str = "") -> Call[Broadcast]:
    """Make a draft; nothing is sent before `send` or `schedule`."""
    return Call("POST", "/v1/broadcasts", Broadcast, body=body_of(broadcast), idempotency_key=idempotency_key)


def get(broadcast: str) -> Call[Broadcast]:
    """Show a broadcast."""
    return Call("GET", at("/v1/broadcasts/{}", broadcast), Broadcast)


def find(*, page_size: int = PAGE_SIZE) -> Pages[Broadcast]:
    """All broadcasts, the oldest first."""
    return Pages("/v1/broadcasts", Page[Broadcast], page_size=page_size)


def stats(broadcast: str) -> Call[BroadcastStats]:
    """Count a broadcast's deliveries by state."""
    return Call("GET", at("/v1/broadcasts/{}/stats", broadcast), BroadcastStats)


def change(broadcast: str, changes: BroadcastChange) -> Call[Broadcast]:
    """Change a draft."""
    return Call("PATCH", at("/v1/broadcasts/{}", broadcast), Broadcast, body=body_of(changes))


def delete(broadcast: str) -> Call[None]:
    """Remove a draft; what was launched stays in the books."""
    return Call("DELETE", at("/v1/broadcasts/{}", broadcast), type(None))


def estimate(broadcast: str, *, idempotency_key: str = "") -> Call[Estimate]:
    """Count whom it would reach, and check whether it can be sent; changes nothing."""
    return Call(
        "POST", at("/v1/broadcasts/{}/actions/estimate", broadcast), Estimate, idempotency_key=idempotency_key
    )


def send_test(
    broadcast: str, to: str, *, contact: str | None = None, variables: Mapping[str, Any] | None = None, idempotency_key: str = ""
) -> Call[Accepted]:  # fmt: skip
    """Send its mail, as its template is now, to one address, filled in as for a contact; it is no delivery of the broadcast."""
    said = {"to": to, "contact": contact, "variables": variables}
    return Call(
        "POST", at("/v1/broadcasts/{}/actions/test", broadcast), Accepted, body=body_of(given(said)), idempotency_key=idempotency_key
    )  # fmt: skip


def deliveries(broadcast: str, *, state: str | None = None, page_size: int = PAGE_SIZE) -> Pages[BroadcastDelivery]:  # fmt: skip
    """Its deliveries, or those in one state, in the order of the list."""
    path = at("/v1/broadcasts/{}/deliveries", broadcast)
    return Pages(path, Page[BroadcastDelivery], query_of(state=state), page_size)


def follow(broadcast: str) -> Stream[BroadcastStats]:
    """Its books, at once and whenever they have changed, until it has ended. A stream that breaks is taken up again."""
    return Stream(at("/v1/broadcasts/{}/stream", broadcast), BroadcastStats)


def schedule(broadcast: str, send_at: datetime, *, idempotency_key: str = "") -> Call[Broadcast]:
    """Send at a time, with the audience and content of then; a scheduled one: at another time."""
    path = at("/v1/broadcasts/{}/actions/schedule", broadcast)
    body = body_of({"send_at": time_of(send_at)})
    return Call("POST", path, Broadcast, body=body, idempotency_key=idempotency_key)


def send(broadcast: str, *, idempotency_key: str = "") -> Call[Broadcast]:
    """Freeze audience and content, and send."""
    return _act(broadcast, "send", idempotency_key)


def pause(broadcast: str, *, idempotency_key: str = "") -> Call[Broadcast]:
    """Hold back what has not left."""
    return _act(broadcast, "pause", idempotency_key)


def resume(broadcast: str, *, idempotency_key: str = "") -> Call[Broadcast]:
    """Let a paused broadcast go on."""
    return _act(broadcast, "resume", idempotency_key)


def cancel(broadcast: str, *, idempotency_key: str = "") -> Call[Broadcast]:
    """End a broadcast; what waits is cancelled."""
    return _act(broadcast, "cancel", idempotency_key)


def _act(broadcast: str, action: str, idempotency_key: str) -> Call[Broadcast]:
    return Call(
        "POST",
        at("/v1/broadcasts/{}/actions/{}", broadcast, action),
        Broadcast,
        idempotency_key=idempotency_key,
    )
