"""Calls as data: each is a route of the API, and what goes into a path stays one step of it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from gateway.api.server import endpoints
from gateway.api.submission import MessageBody
from gateway.client import AsyncClient, Client
from gateway.client.administration import CreatedKey
from gateway.client.bodies import Attachment, BroadcastChange, ContactChange, NewMessage, Recipient
from gateway.client.call import Call, Pages, Stream, at
from gateway.client.calls import (
    broadcasts,
    contacts,
    domains,
    imports,
    keys,
    lanes,
    lists,
    messages,
    privacy,
    sites,
    suppressions,
    templates,
)

RESOURCES = (
    broadcasts, contacts, domains, imports, keys, lanes, lists, messages, privacy, sites, suppressions, templates,
)  # fmt: skip
NOW = datetime(2026, 12, 1, 8, tzinfo=UTC)
MESSAGE = NewMessage(sender="a@a.example", to="b@b.example", subject="s", text="t")


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    for module in RESOURCES:
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_"):
                yield f"{module.__name__.rpartition('.')[2]}.{name}", function


ROUTES = {(str(one.method), re.sub(r"\{\w+\}", "ID", one.path)): one for one in endpoints()}


def described(describe: Callable[..., Any]) -> Call[Any] | Pages[Any] | Stream[Any]:
    """A call with as little as it needs."""
    given = {
        parameter.name: NOW if parameter.name == "send_at" else 7 if parameter.name == "for_s" else "ID"
        for parameter in inspect.signature(describe).parameters.values()
        if parameter.default is parameter.empty
    }
    return describe(**given)


def route_of(made: Call[Any] | Pages[Any] | Stream[Any]) -> tuple[str, str]:
    return (made.method if isinstance(made, Call) else "GET", made.path)


@pytest.mark.parametrize(("name", "describe"), [pytest.param(*one, id=one[0]) for one in functions()])
def test_a_call_is_a_route_of_the_api(name: str, describe: Callable[..., Any]) -> None:
    made = described(describe)
    assert route_of(made) in ROUTES
    known = {"limit", "after", *ROUTES[route_of(made)].query}
    assert isinstance(made, Stream) or set(made.query) <= known


def test_every_route_for_keys_has_its_call() -> None:
    called = {route_of(described(describe)) for _, describe in functions()}
    assert {route for route in ROUTES if route[1].startswith("/v1/")} == called


def test_both_clients_have_every_call_under_its_name() -> None:
    sync = Client("http://gateway.example", "gw_KEY")
    aio = AsyncClient("http://gateway.example", "gw_KEY")
    for name, describe in functions():
        resource, _, call = name.partition(".")
        for client in (sync, aio):
            method = getattr(getattr(client, resource), call)
            assert method.__doc__ == describe.__doc__
    sync.close()


def test_an_id_stays_one_step_of_the_path() -> None:
    assert at("/v1/contacts/{}", "../sites?x#y") == "/v1/contacts/..%2Fsites%3Fx%23y"
    assert suppressions.remove("a+b/c@d.example").path == "/v1/suppressions/a%2Bb%2Fc%40d.example"
    for wrong in ("", ".", ".."):
        with pytest.raises(ValueError, match="is no id"):
            contacts.get(wrong)


def test_only_what_was_said_is_sent() -> None:
    call = messages.send(MESSAGE)
    assert sent(call) == {
        "from": "a@a.example", "to": "b@b.example", "subject": "s", "text": "t",
    }  # fmt: skip


def test_a_full_message_is_what_the_api_reads() -> None:
    moment = datetime(2026, 12, 1, 8, tzinfo=UTC)
    message = NewMessage(
        sender="Acme <hello@acme.example>",
        to=[Recipient("ada@one.example", "Ada", {"n": 1}), "bob@two.example"],
        subject="s",
        html="<p>h",
        text="t",
        variables={"x": [1, 2]},
        reply_to="help@acme.example",
        attachments=[Attachment("a.txt", "text/plain", b"\x00\xff", "c1")],
        headers={"X-Order": "7"},
        stream="marketing",
        send_at=moment,
        expires_in_s=3600,
    )
    call = messages.send(message)
    assert isinstance(call.body, bytes)
    read = msgspec.json.decode(call.body, type=MessageBody)
    assert (read.send_at, read.stream, read.expires_in_s) == (moment, "marketing", 3600)
    assert (read.attachments[0].content, read.headers, read.variables) == (
        b"\x00\xff",
        {"X-Order": "7"},
        {"x": [1, 2]},
    )
    assert isinstance(read.to, list)
    assert len(read.to) == 2


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        messages.find(created_from=datetime(2026, 1, 1))  # noqa: DTZ001
    found = messages.find(created_from=datetime(2026, 1, 1, tzinfo=UTC), state="queued")
    assert found.query == {"state": "queued", "created_from": "2026-01-01T00:00:00+00:00"}


@pytest.mark.parametrize(
    "url",
    ["", "gateway.example", "ftp://gateway.example", "http://", "/v1", "http://me:secret@gateway.example"],
)
def test_what_is_no_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="URL") as refused:
        Client(url, "gw_KEY")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("key", ["", "gw_\n", "gw KEY", "gw_é"])
def test_a_key_that_cannot_stand_in_a_header_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="expected an API key") as refused:
        Client("http://gateway.example", key)
    assert not key or key not in str(refused.value)


def sent(call: Call[Any]) -> Any:
    assert isinstance(call.body, bytes)
    return msgspec.json.decode(call.body)


def test_a_key_is_nowhere_to_be_read() -> None:
    key = "gw_c0ffee00c0ffee00"
    with Client("http://gateway.example", key) as client:
        shown = (
            f"{client!r}{vars(client)!r}{client.messages!r}{[vars(part) for part in vars(client).values()]!r}"
        )
    assert key not in shown
    made = CreatedKey("key_1", None, "n", "gw_c0ff", ("send",), NOW, key)
    assert key not in f"{made!r}{made}{[made]}"
    assert made.key == key


def test_a_change_says_only_what_changes() -> None:
    call = contacts.change("con_1", ContactChange(first_name="", fields={"company": None}))
    assert sent(call) == {"first_name": "", "fields": {"company": None}}
    assert sent(broadcasts.change("brd_1", BroadcastChange(sender="n@a.example"))) == {"from": "n@a.example"}
