"""`/v1/broadcasts` as calls. Pure."""

from __future__ import annotations

from gateway.client.bodies import NewBroadcast
from gateway.client.call import PAGE_SIZE, Call, Page, Pages, at, body_of
from gateway.client.results import Broadcast, BroadcastStats


def create(broadcast: NewBroadcast, *, idempotency_key: str = "") -> Call[Broadcast]:
    """Make a draft; nothing is sent before `send`."""
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
