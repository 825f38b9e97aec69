"""What an app does to its broadcasts: send, pause, resume, cancel.

Owns what each action means for the row, the hold and the audience; which action is allowed says `model/broadcast`. Must not
know HTTP. Each function works in the caller's transaction, with the broadcast locked, and changes no delivery: a pause holds
a million of them by one row, and the scheduler (`campaigns/scheduler`) does what takes long.
"""

from __future__ import annotations

from gateway.errors import DomainUnverified
from gateway.model.broadcast import Action, BroadcastState, transition
from gateway.store import broadcasts, domains
from gateway.store.broadcasts import Broadcast
from gateway.store.pool import Connection
from gateway.telemetry import Event, log


async def send(connection: Connection, broadcast_id: int, message_id: int) -> Broadcast:
    """Freeze audience and content (as message `message_id`) and have the broadcast expanded.

    Raises:
        NotFound: no such broadcast here.
        InvalidTransition: it was sent already, or has ended.
        DomainUnverified: its From address stands on a domain that is not verified (any more).
    """
    broadcast = await broadcasts.get_broadcast(connection, broadcast_id, lock=True)
    after = transition(broadcast.state, Action.SEND)
    domain = await domains.get_domain(connection, broadcast.domain_id)
    if domain.status != "verified":
        raise DomainUnverified(f"{domain.name} is not verified; nothing is sent from it")
    launched = await broadcasts.freeze(connection, broadcast_id, message_id)
    assert launched.state is after
    return _told(broadcast, launched, "user")


async def pause(connection: Connection, broadcast_id: int, by: str = "user") -> Broadcast:
    """Hold everything of a broadcast that has not left; what dispatchers have in hand still goes.

    Raises:
        NotFound: no such broadcast here.
        InvalidTransition: it is not being sent.
    """
    broadcast = await broadcasts.get_broadcast(connection, broadcast_id, lock=True)
    after = transition(broadcast.state, Action.PAUSE)
    await broadcasts.hold(connection, broadcast_id, "paused")
    return _told(broadcast, await broadcasts.set_state(connection, broadcast_id, after, by), by)


async def resume(connection: Connection, broadcast_id: int) -> Broadcast:
    """Let a paused broadcast go on.

    After the commit the caller wakes it (`store.broadcasts.wake`): a claim that still saw the hold would put its lanes to
    sleep again.

    Raises:
        NotFound: no such broadcast here.
        InvalidTransition: it is not paused.
    """
    broadcast = await broadcasts.get_broadcast(connection, broadcast_id, lock=True)
    after = transition(broadcast.state, Action.RESUME)
    await broadcasts.unhold(connection, broadcast_id)
    return _told(broadcast, await broadcasts.set_state(connection, broadcast_id, after), "user")


async def cancel(connection: Connection, broadcast_id: int) -> Broadcast:
    """End a broadcast: nothing more is expanded or claimed, and the scheduler ends what waits.

    Raises:
        NotFound: no such broadcast here.
        InvalidTransition: it has ended.
    """
    broadcast = await broadcasts.get_broadcast(connection, broadcast_id, lock=True)
    after = transition(broadcast.state, Action.CANCEL)
    if broadcast.started_at is not None:
        await broadcasts.hold(connection, broadcast_id, "cancelled")
    return _told(broadcast, await broadcasts.set_state(connection, broadcast_id, after), "user")


def _told(before: Broadcast, after: Broadcast, cause: str) -> Broadcast:
    states: tuple[BroadcastState, BroadcastState] = (before.state, after.state)
    log.info(Event.BROADCAST_STATE, broadcast_id=after.id, before=states[0], after=states[1], cause=cause)
    return after
