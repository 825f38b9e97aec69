"""What a node answers to those who watch it."""

from __future__ import annotations

import pytest

from gateway.app.probe import answer, parse_request


class Told:
    """A node in a state that the test says."""

    def __init__(self, *problems: str) -> None:
        self._problems = list(problems)

    async def metrics(self) -> str:
        return "up 1\n"

    async def problems(self) -> list[str]:
        return self._problems


@pytest.mark.parametrize(
    ("head", "request_"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", ("GET", "/metrics")),
        (b"GET /readyz?full=1 HTTP/1.0\r\n\r\n", ("GET", "/readyz")),
        (b"GET /metrics\r\n\r\n", ("", "")),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", ("", "")),
        (b"GET  / HTTP/1.1\r\n\r\n", ("", "")),
        (b"\r\n\r\n", ("", "")),
    ],
)
def test_reads_a_request(head: bytes, request_: tuple[str, str]) -> None:
    assert parse_request(head) == request_


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/metrics", "200 OK", b"up 1\n"),
        ("GET", "/healthz", "200 OK", b'{"status":"ok"}'),
        ("HEAD", "/readyz", "200 OK", b'{"status":"ok"}'),
        ("POST", "/metrics", "405 Method Not Allowed", b'{"status":"expected GET"}'),
        ("GET", "/", "404 Not Found", b'{"status":"there are /metrics, /healthz and /readyz"}'),
        ("", "", "400 Bad Request", b'{"status":"expected an HTTP request"}'),
    ],
)
async def test_answers(method: str, path: str, status: str, body: bytes) -> None:
    found = await answer(method, path, Told())
    assert (found.status, found.body) == (status, body)


async def test_what_is_not_ready_says_why_and_lives_all_the_same() -> None:
    node = Told("dispatch-1 does not answer", "Postgres is away")
    found = await answer("GET", "/readyz", node)
    assert found.status == "503 Service Unavailable"
    assert (
        found.body == b'{"status":"unavailable","problems":["dispatch-1 does not answer","Postgres is away"]}'
    )
    assert (await answer("GET", "/healthz", node)).status == "200 OK"
