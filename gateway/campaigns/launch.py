"""What an app does to its broadcasts: send, schedule, pause, resume, cancel; and what the scheduler does when a time has come.

Owns what each action means for the row, the hold and the audience; which action is allowed says `model/broadcast`. Must not
know HTTP. Each function works in the caller's transaction, with the broadcast locked, and changes no delivery: a pause holds
a million of them by one row, and the scheduler (`campaigns/scheduler`) does what takes long.

A scheduled broadcast is launched as if somebody pressed the button at that time: audience and content are those of then.
"""

from __future__ import annotations

from datetime import datetime

from gateway.errors import DomainUnverified
from gateway.model.broadcast import Action, BroadcastState, transition
from gateway.store import broadcasts, domains, sites
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
    if unverified := await _unverified(connection, broadcast):
        raise DomainUnverified(unverified)
    launched = await broadcasts.freeze(connection, broadcast_id, message_id)
    assert launched.state is after
    return _told(broadcast, launched, "user")


async def schedule(connection: Connection, broadcast_id: int, send_at: datetime) -> Broadcast:
    """Have a broadcast launched at a time; one that is scheduled already, at another one.

    Raises:
        NotFound: no such broadcast here.
        InvalidTransition: it was sent already, or has ended.
        DomainUnverified: its From address stands on a domain that is not verified (any more).
    """
    broadcast = await broadcasts.get_broadcast(connection, broadcast_id, lock=True)
    after = transition(broadcast.state, Action.SCHEDULE)
    if unverified := await _unverified(connection, broadcast):
        raise DomainUnverified(unverified)
    scheduled = await broadcasts.schedule(connection, broadcast_id, send_at)
    assert scheduled.state is after
    return _told(broadcast, scheduled, "user")


async def start(connection: Connection, broadcast_id: int, message_id: int) -> Broadcast:
    """Launch a scheduled broadcast, or end it as failed where it must not be sent any more: nobody is there to be told.

    Raises:
        NotFound: no such broadcast.
        InvalidTransition: it is not scheduled.
    """
    broadcast = await broadcasts.get_broadcast(connection, broadcast_id, lock=True)
    if obstacle := await _obstacle(connection, broadcast):
        transition(broadcast.state, Action.FAIL)
        return _told(broadcast, await broadcasts.fail(connection, broadcast_id, obstacle), obstacle)
    after = transition(broadcast.state, Action.SEND)
    launched = await broadcasts.freeze(connection, broadcast_id, message_id)
    assert launched.state is after
    return _told(broadcast, launched, "its time has come")


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


async def _unverified(connection: Connection, broadcast: Broadcast) -> str:
    """Say what is wrong with the domain of a broadcast's sender; nothing where it is verified."""
    domain = await domains.get_domain(connection, broadcast.domain_id)
    return "" if domain.status == "verified" else f"{domain.name} is not verified; nothing is sent from it"


async def _obstacle(connection: Connection, broadcast: Broadcast) -> str:
    """Say what has come up since a broadcast was scheduled that forbids to send it; nothing where all is well."""
    site = await sites.get_site(connection, broadcast.site_id)
    if site.status == "suspended":
        return "the site is suspended"
    if not site.campaigns:
        return "campaigns are not switched on for this site any more"
    return await _unverified(connection, broadcast)


def _told(before: Broadcast, after: Broadcast, cause: str) -> Broadcast:
    states: tuple[BroadcastState, BroadcastState] = (before.state, after.state)
    log.info(Event.BROADCAST_STATE, broadcast_id=after.id, before=states[0], after=states[1], cause=cause)
    return after
