from __future__ import annotations

import asyncio

import pytest

from bench.load.http import Client, Load, SteadyLoad, answer_length, get, post

ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: 5\r\nx-request-id: 1\r\n\r\nhello"


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True


def _client() -> tuple[Client, Load, Wire]:
    load = Load(requests=[post("/v1/messages", "key", b"{1}"), post("/v1/messages", "key", b"{2}")])
    client, wire = Client(load), Wire()
    client.connection_made(wire)
    return client, load, wire


def test_a_request_is_whole() -> None:
    assert post("/x", "k", b"{}").endswith(
        b"Authorization: Bearer k\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )


def test_the_length_is_found_in_any_case() -> None:
    assert answer_length(b"HTTP/1.1 202 Accepted\r\nCONTENT-Length: 17\r\n") == 17
    with pytest.raises(ValueError, match="Content-Length"):
        answer_length(b"HTTP/1.1 202 Accepted\r\n")


async def test_an_answer_in_pieces_is_counted_once_and_the_next_request_follows() -> None:
    client, load, wire = _client()
    for byte in ACCEPTED:
        client.data_received(bytes([byte]))
    assert len(load.latencies_s) == 1
    assert [request[-3:] for request in wire.written] == [b"{1}", b"{2}"]


async def test_what_is_not_accepted_is_kept_as_an_error() -> None:
    client, load, _ = _client()
    client.data_received(ACCEPTED.replace(b"202", b"503"))
    assert not load.latencies_s
    assert load.first_errors


async def test_a_load_that_stops_closes_after_the_answer() -> None:
    client, load, wire = _client()
    load.stopping = True
    client.data_received(ACCEPTED)
    assert wire.is_closed
    client.connection_lost(None)
    assert client.closed.done()
    assert not load.first_errors


async def test_an_answer_is_counted_when_it_has_the_status_that_was_wanted() -> None:
    load = Load(requests=[get("/v1/messages", "key")], status=b"200")
    client, wire = Client(load), Wire()
    client.connection_made(wire)
    assert wire.written == [b"GET /v1/messages HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer key\r\n\r\n"]
    client.data_received(ACCEPTED.replace(b"202", b"200"))
    client.data_received(ACCEPTED)
    assert (len(load.latencies_s), len(load.first_errors)) == (1, 1)


def _steady() -> tuple[SteadyLoad, Client, Wire]:
    load = SteadyLoad(requests=[b"{1}", b"{2}", b"{3}"])
    client, wire = Client(load), Wire()
    client.connection_made(wire)
    return load, client, wire


async def test_a_steady_load_sends_nothing_before_its_moment() -> None:
    _, _, wire = _steady()
    assert wire.written == []


async def test_a_request_whose_connections_are_all_busy_is_counted_from_its_own_moment() -> None:
    load, client, wire = _steady()
    await load.run(1e9, 3e-9)
    assert (wire.written, load.most_waiting, len(load.late_s)) == ([b"{1}"], 2, 1)
    for answered in (1, 2, 3):
        assert not wire.is_closed
        client.data_received(ACCEPTED)
        assert len(load.latencies_s) == answered
    assert wire.written == [b"{1}", b"{2}", b"{3}"]
    assert load.latencies_s == sorted(load.latencies_s), "each waited for all before it"
    assert wire.is_closed


async def test_a_steady_load_closes_its_idle_connections_at_its_end() -> None:
    load, client, wire = _steady()
    await load.run(1e9, 1e-9)
    client.data_received(ACCEPTED)
    assert wire.is_closed
    other = Wire()
    Client(load).connection_made(other)
    assert other.is_closed
