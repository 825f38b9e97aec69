"""The client against the real API over sockets, and against servers that hang up, refuse and babble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.client import (
    NEVER,
    AsyncClient,
    BroadcastChange,
    Client,
    Conflict,
    ContactChange,
    DomainUnverified,
    Forbidden,
    Garbled,
    IdempotencyMismatch,
    Invalid,
    InvalidTransition,
    NewBroadcast,
    NewContact,
    NewMessage,
    NewSuppression,
    NewTemplate,
    NotFound,
    Recipient,
    Retry,
    Unauthorized,
    Unreachable,
)
from gateway.client.results import Accepted
from gateway.store.tenancy import OPERATOR, as_site
from tests.support.api import CSV
from tests.support.live_api import Live, live_api
from tests.support.peers import free_port
from tests.support.scripted_http import HANG_UP, answer, scripted_http

AT_ONCE = Retry(first_s=0.0, longest_s=0.0)
HELLO = NewMessage(sender="a@acme.example", to="ada@one.example", subject="s", text="t")
ACCEPTED = msgspec.json.encode(Accepted("msg_1", []))


@pytest.fixture
async def live(db: str, tmp_path: Path) -> AsyncIterator[Live]:
    async with live_api(db, tmp_path) as opened:
        yield opened


@pytest.fixture
async def client(live: Live) -> AsyncIterator[AsyncClient]:
    site = await live.world.site(domain="acme.example")
    async with AsyncClient(live.url, site.key or "") as opened:
        yield opened


async def everything(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


async def test_a_message_is_sent_looked_at_explained_and_cancelled(client: AsyncClient) -> None:
    accepted = await client.messages.send(HELLO)
    (delivery,) = accepted.deliveries
    assert (delivery.to, delivery.state) == ("ada@one.example", "queued")
    shown = await client.messages.get(accepted.id)
    assert (shown.sender, shown.state, shown.deliveries[0].id) == ("a@acme.example", "queued", delivery.id)
    (why,) = await everything(client.messages.why(accepted.id))
    assert [reason.code for reason in why.reasons] == ["no_dispatcher"]
    (found,) = await everything(client.messages.find(recipient="ada@one.example", state="queued"))
    assert (found.id, found.recipients) == (accepted.id, 1)
    assert (await client.messages.hold(accepted.id)).state == "held"
    assert (await client.messages.release(accepted.id)).state == "queued"
    assert (await client.messages.cancel(accepted.id)).states == {"cancelled": 1}
    with pytest.raises(InvalidTransition):
        await client.messages.cancel(accepted.id)


async def test_the_client_that_waits_does_the_same(live: Live) -> None:
    site = await live.world.site(domain="acme.example")

    def work() -> None:
        with Client(live.url, site.key or "") as client:
            accepted = client.messages.send(HELLO)
            assert client.messages.get(accepted.id).states == {"queued": 1}
            assert [one.id for one in client.messages.find(page_size=1)] == [accepted.id]
            assert client.messages.cancel(accepted.id).state == "cancelled"
            for number in range(5):
                client.suppressions.add(NewSuppression(email=f"u{number}@one.example"))
            assert len(list(client.suppressions.find(page_size=2))) == 5
            client.suppressions.remove("u0@one.example")
            with pytest.raises(NotFound):
                client.suppressions.remove("u0@one.example")

    await asyncio.to_thread(work)


async def test_of_many_messages_each_has_its_own_answer(client: AsyncClient) -> None:
    await client.suppressions.add(NewSuppression(email="bob@two.example"))
    answers = await client.messages.send_many(
        [
            HELLO,
            msgspec.structs.replace(HELLO, to=[Recipient("ada@one.example", variables={"n": 1}), "nobody"]),
            msgspec.structs.replace(HELLO, sender="a@other.example"),
            msgspec.structs.replace(HELLO, to="bob@two.example"),
        ]
    )
    good, wrong, foreign, suppressed = answers.data
    assert (good.problem, len(good.deliveries)) == (None, 1)
    assert isinstance(wrong.problem, Invalid)
    assert [error.pointer for error in wrong.problem.errors] == ["/1/to/1"]
    assert isinstance(foreign.problem, DomainUnverified)
    assert suppressed.deliveries[0].state == "suppressed"


async def test_a_refusal_is_an_exception_with_pointers_and_request_id(
    live: Live, client: AsyncClient
) -> None:
    with pytest.raises(Invalid) as refused:
        await client.messages.send(
            NewMessage(sender="a@acme.example", to=["nobody", "b@b.example"], subject="s", text="t")
        )
    assert [error.pointer for error in refused.value.errors] == ["/to/0"]
    assert (refused.value.status, len(refused.value.request_id)) == (422, 16)
    with pytest.raises(NotFound):
        await client.messages.get("msg_0000000001j4z")
    await client.lists.create("news", idempotency_key="k")
    with pytest.raises(IdempotencyMismatch):
        await client.lists.create("other", idempotency_key="k")
    await client.contacts.create(NewContact(email="ada@one.example"))
    with pytest.raises(Conflict):
        await client.contacts.create(NewContact(email="ada@one.example"))
    reader = await live.world.site(scopes=("read",))
    async with AsyncClient(live.url, reader.key or "") as other:
        with pytest.raises(Forbidden):
            await other.messages.send(HELLO)
    async with AsyncClient(live.url, "gw_nobody") as other:
        with pytest.raises(Unauthorized):
            await other.messages.send(HELLO)


async def test_the_same_key_is_the_same_message(client: AsyncClient) -> None:
    first = await client.messages.send(HELLO, idempotency_key="order-4711")
    assert await client.messages.send(HELLO, idempotency_key="order-4711") == first
    assert (await client.messages.send(HELLO)).id != first.id


async def test_contacts_lists_templates_and_a_broadcast(client: AsyncClient) -> None:
    people = await client.lists.create("people")
    for name in ("ada", "bob", "eve"):
        contact = await client.contacts.create(
            NewContact(
                email=f"{name}@one.example", first_name=name, tags=["vip"], fields={"company": "Engines"}
            )
        )
        await client.lists.add(people.id, contact.id)
    found = await everything(client.contacts.find(page_size=2))
    assert [one.first_name for one in found] == ["ada", "bob", "eve"]
    assert (found[0].tags, found[0].fields) == (["vip"], {"company": "Engines"})
    (eve,) = await everything(client.contacts.find(email="EVE@one.example"))
    assert await client.contacts.get(eve.id) == eve
    await client.lists.remove(people.id, eve.id)
    await client.contacts.delete(eve.id)
    assert (await client.lists.get(people.id)).members == 2
    template = await client.templates.create(
        NewTemplate(name="hello", subject="Hello {{ first_name }}", text="Hi")
    )
    changed = await client.templates.change(
        template.id, NewTemplate(name="hello", subject="Hello", text="Hi there")
    )
    assert (changed.version, (await client.templates.get(template.id)).text) == (2, "Hi there")
    assert [one.id for one in await everything(client.templates.find())] == [template.id]
    draft = await client.broadcasts.create(
        NewBroadcast(name="news", list=people.id, template=template.id, sender="News <news@acme.example>")
    )
    assert (draft.state, "send" in draft.actions) == ("draft", True)
    launched = await client.broadcasts.send(draft.id)
    assert launched.state == "preparing"
    assert (await client.broadcasts.pause(draft.id)).paused_by == "user"
    assert (await client.broadcasts.resume(draft.id)).state == "sending"
    assert (await client.broadcasts.cancel(draft.id)).state == "cancelled"
    with pytest.raises(InvalidTransition):
        await client.broadcasts.resume(draft.id)
    assert (await client.broadcasts.stats(draft.id)).accepted == 0
    assert [one.id for one in await everything(client.broadcasts.find())] == [draft.id]
    assert (await client.broadcasts.get(draft.id)).state == "cancelled"
    assert await everything(client.broadcasts.deliveries(draft.id)) == []
    spare = await client.lists.create("spare")
    await client.lists.delete(spare.id)
    assert [one.name for one in await everything(client.lists.find())] == ["people"]


async def test_contacts_and_lists_are_changed_and_found(client: AsyncClient) -> None:
    people = await client.lists.rename((await client.lists.create("people")).id, "customers")
    made = [
        await client.contacts.create(NewContact(email=f"{name}@one.example", first_name=name, tags=["t"]))
        for name in ("ada", "bob", "eve")
    ]
    await client.lists.add_many(people.id, [one.id for one in made[:2]])
    assert [one.id for one in await everything(client.lists.members(people.id, page_size=1))] == [
        one.id for one in made[:2]
    ]
    changed = await client.contacts.change(
        made[0].id, ContactChange(first_name="Ada", tags=["vip"], fields={"company": "Engines"})
    )
    assert (changed.first_name, changed.tags, changed.fields) == ("Ada", ["vip"], {"company": "Engines"})
    assert (await client.contacts.change(changed.id, ContactChange(fields={"company": None}))).fields == {}
    filtered: list[tuple[dict[str, Any], list[str]]] = [
        ({"tag": "vip"}, ["Ada"]), ({"search": "BOB@"}, ["bob"]), ({"in_list": people.id}, ["Ada", "bob"]),
    ]  # fmt: skip
    for filters, expected in filtered:
        assert [one.first_name for one in await everything(client.contacts.find(**filters))] == expected
    with pytest.raises(Invalid) as refused:
        await client.lists.add_many(people.id, [made[2].id, "con_0000000000009"])
    assert [error.pointer for error in refused.value.errors] == ["/contacts/1"]


async def test_a_broadcast_is_estimated_tried_changed_scheduled_and_removed(client: AsyncClient) -> None:
    people = await client.lists.create("people")
    ada = await client.contacts.create(NewContact(email="ada@one.example", first_name="Ada"))
    await client.lists.add(people.id, ada.id)
    template = await client.templates.create(
        NewTemplate(name="t", subject="Hello {{ first_name }}", text="Hi")
    )
    rendered = await client.templates.render(template.id, contact=ada.id)
    assert (rendered.subject, rendered.text) == ("Hello Ada", "Hi")
    tried = await client.templates.send_test(
        template.id, "me@acme.example", sender="a@acme.example", variables={"first_name": "Eve"}
    )
    assert (await client.messages.get(tried.id)).stream == "marketing"
    draft = await client.broadcasts.create(
        NewBroadcast(name="news", list=people.id, template=template.id, sender="news@acme.example")
    )
    assert (await client.broadcasts.change(draft.id, BroadcastChange(name="other"))).name == "other"
    estimate = await client.broadcasts.estimate(draft.id)
    assert (estimate.audience, estimate.recipients, estimate.excluded) == (1, 1, {})
    assert "domain_verified" in [check.name for check in estimate.checks if check.passed]
    tried = await client.broadcasts.send_test(draft.id, "me@acme.example", contact=ada.id)
    assert [one.state for one in tried.deliveries] == ["queued"]
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    scheduled = await client.broadcasts.schedule(draft.id, moment)
    assert (scheduled.state, scheduled.scheduled_at) == ("scheduled", moment)
    await client.broadcasts.cancel(draft.id)
    spare = await client.broadcasts.create(
        NewBroadcast(name="spare", list=people.id, template=template.id, sender="news@acme.example")
    )
    await client.broadcasts.delete(spare.id)
    with pytest.raises(NotFound):
        await client.broadcasts.get(spare.id)


async def test_a_broadcast_is_followed_until_it_has_ended(client: AsyncClient, live: Live) -> None:
    people = await client.lists.create("people")
    template = await client.templates.create(NewTemplate(name="t", subject="s", text="t"))
    draft = await client.broadcasts.create(
        NewBroadcast(name="news", list=people.id, template=template.id, sender="news@acme.example")
    )
    states: list[str] = []
    async for stats in client.broadcasts.follow(draft.id):
        states.append(stats.state)
        if stats.state == "draft":
            await client.broadcasts.send(draft.id)
        elif stats.state == "preparing":
            await client.broadcasts.cancel(draft.id)
            async with as_site(live.world.services.pool, OPERATOR) as connection:  # as the scheduler does
                await connection.execute("UPDATE broadcast SET ended_at = now()")
    assert states == ["draft", "preparing", "cancelled"]
    with pytest.raises(NotFound):
        await everything(client.broadcasts.follow("brd_0000000000099"))
    reader = await live.world.site(scopes=("send",))

    def work() -> None:
        with Client(live.url, reader.key or "") as other, pytest.raises(Forbidden):
            next(other.broadcasts.follow(draft.id))

    await asyncio.to_thread(work)


async def test_the_client_that_waits_takes_a_broken_stream_up_again() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nconnection: close\r\n\r\n"
    told = b'{"accepted":%d,"expanded":true,"state":"sending","states":{}}'
    first = head + b"retry: 0\n\nid: a\nevent: progress\ndata: " + told % 1 + b"\n\n"
    second = head + b"id: b\nevent: progress\ndata: " + told % 2 + b"\n\nid: b\nevent: end\ndata: {}\n\n"
    async with scripted_http([first, HANG_UP, second]) as server:

        def work() -> list[int]:
            with Client(server.url, "gw_KEY", retry=AT_ONCE) as client:
                return [stats.accepted for stats in client.broadcasts.follow("brd_1")]

        assert await asyncio.to_thread(work) == [1, 2]
        assert [one.headers.get("last-event-id") for one in server.requests] == [None, "a", "a"]
        assert {one.headers["authorization"] for one in server.requests} == {"Bearer gw_KEY"}


async def test_suppressions_come_as_a_file_and_leave_as_one(client: AsyncClient, tmp_path: Path) -> None:
    file = tmp_path / "old.csv"
    file.write_text("email,scope,reason\na@one.example,marketing,asked\nnobody,,\nb@one.example,,\n")
    told = await client.suppressions.add_file(file)
    assert (told.rows, told.added, told.known, told.refused) == (3, 2, 0, 1)
    assert [(error.line, error.column) for error in told.errors] == [(3, "email")]
    found = await everything(client.suppressions.find(scope="marketing", reason="asked"))
    assert [one.email for one in found] == ["a@one.example"]
    text = await client.suppressions.export(email="b@one.example")
    assert [line.split(",")[0] for line in text.splitlines()] == ["email", "b@one.example"]
    assert (await client.suppressions.add_file(text.encode())).known == 1


async def test_who_administers_a_site_makes_domains_and_keys(client: AsyncClient, live: Live) -> None:
    made = await client.domains.create("shop.example", ed25519=True)
    assert ([record.type for record in made.records], made.status) == (["TXT"] * 3, "pending")
    rotated = await client.domains.rotate(made.id)
    assert rotated.records[0] == made.records[1]
    assert [one.name for one in await everything(client.domains.find())] == ["acme.example", "shop.example"]
    key = await client.keys.create(["send", "read"], name="shop")
    async with AsyncClient(live.url, key.key) as other:
        assert await everything(other.messages.find()) == []
        assert (await client.keys.revoke(key.id)).revoked_at is not None
    assert key.id in [one.id for one in await everything(client.keys.find(page_size=1))]
    async with AsyncClient(live.url, live.world.operator.key or "") as operator:
        assert (await operator.domains.mark_verified(made.id)).status == "verified"
    assert (await client.domains.get(made.id)).verified_at is not None


async def test_an_operator_makes_sites_and_steers_lanes(client: AsyncClient, live: Live) -> None:
    await client.messages.send(HELLO)
    async with AsyncClient(live.url, live.world.operator.key or "") as operator:
        site = await operator.sites.create("Shop", time_zone="Europe/Paris", idempotency_key="shop")
        assert await operator.sites.create("Shop", time_zone="Europe/Paris", idempotency_key="shop") == site
        assert (await operator.sites.hold(site.id, "abuse")).hold is not None
        assert (await operator.sites.release(site.id)).hold is None
        assert (await operator.sites.get(site.id)).name == "Shop"
        assert (await operator.sites.change(site.id, campaigns=False)).campaigns is False
        assert [one.name for one in await everything(operator.sites.find())] == ["Acme", "Shop"]
        key = await operator.keys.create(["send"], site=site.id)
        assert key.site == site.id
        assert [one.id for one in await everything(operator.keys.find(site=site.id))] == [key.id]
        (lane,) = await everything(operator.lanes.find(domain="one.example"))
        assert (lane.name, lane.ready, lane.held) == ("one.example", 1, [])
        limited = await operator.lanes.limit(lane.id, for_s=60, why="they defer us", rate_per_s=0.5)
        assert limited.limit is not None
        assert (limited.rate_per_s, limited.limit.rate_per_s, limited.limit.burst) == (0.5, 0.5, None)
        await operator.lanes.unlimit(lane.id)
        suspended = await operator.lanes.suspend(lane.id, "they asked us to", for_s=60)
        assert [one.code for one in suspended.held] == ["lane_suspended"]
        assert [one.id for one in await everything(operator.lanes.find(suspended=True))] == [lane.id]
        assert (await operator.lanes.resume(lane.id)).held == []
        assert (await operator.lanes.drain(lane.id, "maintenance")).leased == 0
        await operator.lanes.resume(lane.id)
        assert (await operator.lanes.get(lane.id)).limit is None
        with pytest.raises(Forbidden):
            await operator.messages.send(HELLO)
    with pytest.raises(Forbidden):
        await everything(client.lanes.find())


async def test_a_file_is_imported_and_its_bad_rows_are_told(
    client: AsyncClient, live: Live, tmp_path: Path
) -> None:
    file = tmp_path / "people.csv"
    file.write_bytes(CSV + b"nobody,No,Body\n")
    imported = await client.imports.create(file, to_list="people")
    assert (imported.status, imported.rows, imported.created, imported.refused) == ("completed", 3, 2, 1)
    (error,) = await everything(client.imports.errors(imported.id))
    assert (error.line, error.column, error.value) == (4, "email", "nobody")
    assert await client.imports.get(imported.id) == imported
    template = await client.imports.template()
    assert template.startswith("email")
    again = await client.imports.create(template.encode(), idempotency_key="k")
    assert (await client.imports.create(template.encode(), idempotency_key="k")).id == again.id
    assert len(await everything(client.imports.find())) == 2
    site = await live.world.site("Other")

    def work() -> int:
        with Client(live.url, site.key or "") as other:
            return other.imports.create(file, to_list="people").created

    assert await asyncio.to_thread(work) == 2
    with pytest.raises(FileNotFoundError):
        await client.imports.create(tmp_path / "none.csv")


async def test_a_connection_that_is_cut_is_made_again_with_the_same_key() -> None:
    busy = answer(503, b'{"type":"unavailable","title":"t","status":503,"detail":"d"}', "retry-after: 0")
    async with scripted_http([HANG_UP, busy, answer(202, ACCEPTED)]) as server:
        async with AsyncClient(server.url, "gw_KEY", retry=AT_ONCE) as client:
            assert (await client.messages.send(HELLO)).id == "msg_1"
        assert len({request.headers["idempotency-key"] for request in server.requests}) == 1
        assert {request.line for request in server.requests} == {"POST /v1/messages HTTP/1.1"}
        assert len({request.body for request in server.requests}) == 1
        assert {request.headers["authorization"] for request in server.requests} == {"Bearer gw_KEY"}


async def test_two_calls_have_two_keys() -> None:
    async with scripted_http([answer(202, ACCEPTED)] * 2) as server:
        async with AsyncClient(server.url, "gw_KEY") as client:
            await client.messages.send(HELLO)
            await client.messages.send(HELLO)
        first, second = (request.headers["idempotency-key"] for request in server.requests)
        assert first != second


async def test_the_client_that_waits_reads_a_file_anew_for_each_try(tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_bytes(CSV)
    done = b'{"id":"imp_1","list":null,"status":"completed","rows":2,"created":2,"merged":0,"refused":0,"detail":"",' \
           b'"created_at":"2026-11-26T12:00:00Z","ended_at":null}'  # fmt: skip
    for make in ("sync", "async"):
        async with scripted_http([HANG_UP, answer(202, done)]) as server:
            if make == "sync":
                with Client(server.url, "gw_KEY", retry=AT_ONCE) as client:
                    await asyncio.to_thread(client.imports.create, file)
            else:
                async with AsyncClient(server.url, "gw_KEY", retry=AT_ONCE) as client:
                    await client.imports.create(file)
            assert [request.body for request in server.requests] == [CSV, CSV]


async def test_nobody_there_is_unreachable() -> None:
    async with AsyncClient(f"http://127.0.0.1:{free_port()}", "gw_KEY", retry=NEVER) as client:
        with pytest.raises(Unreachable, match="GET /v1/messages/msg_1: no answer"):
            await client.messages.get("msg_1")


async def test_another_server_at_this_address_is_told_from_the_gateway() -> None:
    pages = [answer(200, b"<html>It works!</html>"), answer(404, b"<html>nginx</html>")]
    async with scripted_http(pages) as server, AsyncClient(server.url, "gw_KEY") as client:
        for _ in range(2):
            with pytest.raises(Garbled):
                await client.messages.get("msg_1")
