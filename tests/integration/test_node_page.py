"""A node's own address: the metrics of all its processes, and whether it is ready."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from demo.processes import Program
from gateway.app.probe import HEAD_LIMIT_BYTES, serve_probe

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(is_so: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Processes have no event to wait for."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.02)


def test_a_node_tells_of_all_its_processes_and_of_one_that_is_stuck(db: str, tmp_path: Path) -> None:
    port = free_port()
    env = {
        **os.environ,
        "GATEWAY_DSN": db,
        "GATEWAY_DATA_DIR": str(tmp_path / "data"),
        "GATEWAY__METRICS__PORT": str(port),
        "GATEWAY__API__PORT": str(free_port()),
        "GATEWAY__LISTEN__PORT": str(free_port()),
    }
    roles = ("api", "dispatch", "schedule", "listen")
    names = {"api", "dispatch-1", "dispatch-2", "schedule", "listen"}
    with (
        Program(
            "gateway.cli",
            "run",
            "--json",
            "--roles",
            ",".join(roles),
            "--workers",
            "2",
            log_path=tmp_path / "log",
            env=env,
        ) as gateway,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as http,
    ):
        eventually(lambda: http.get("/readyz").status_code == 200)
        page = http.get("/metrics")
        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
        samples = [s for family in text_string_to_metric_families(page.text) for s in family.samples]
        up = {s.labels["process"]: s.value for s in samples if s.name == "gateway_process_up"}
        assert up == dict.fromkeys(names, 1.0)
        assert {s.labels["process"] for s in samples if s.name == "process_cpu_seconds_total"} == names
        assert [s.value for s in samples if s.name == "gateway_database_up"] == [1.0]
        claims = {s.labels["process"]: s.value for s in samples if s.name == "gateway_claims_total"}
        assert claims["dispatch-1"] > 0
        assert claims["dispatch-2"] > 0

        os.kill(gateway.said["pids"]["schedule"], signal.SIGSTOP)
        refused = http.get("/readyz")
        assert (refused.status_code, refused.json()["problems"]) == (503, ["schedule does not answer"])
        assert http.get("/healthz").status_code == 200
        assert 'gateway_process_up{process="schedule"} 0.0' in http.get("/metrics").text
        os.kill(gateway.said["pids"]["schedule"], signal.SIGKILL)
        eventually(lambda: 'gateway_process_restarts{process="schedule"} 1.0' in http.get("/metrics").text)
        eventually(lambda: http.get("/readyz").status_code == 200)
        assert gateway.stop() == 0


class Broken:
    """A node that cannot say how it is."""

    async def metrics(self) -> str:
        raise RuntimeError("on purpose")

    async def problems(self) -> list[str]:
        return []


async def test_no_request_ends_the_address() -> None:
    server = await serve_probe("127.0.0.1", 0, Broken())
    port = server.sockets[0].getsockname()[1]

    async def say(request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer

    assert await say(b"x" * (HEAD_LIMIT_BYTES * 2) + b"\r\n\r\n") == b""
    assert (await say(b"GET /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 500 ")
    head, _, body = (await say(b"HEAD /readyz HTTP/1.1\r\n\r\n")).partition(b"\r\n\r\n")
    assert (head.startswith(b"HTTP/1.1 200 OK"), body) == (True, b"")
    assert (await say(b"GET /healthz HTTP/1.1\r\n\r\n")).endswith(b'{"status":"ok"}')
    server.close()
