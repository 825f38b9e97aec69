"""Schemathesis against a running API: the server, what its answers must not hold, and the run itself, as a program of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
import uvicorn

from gateway.api.endpoint import Endpoint
from gateway.api.server import create_app, endpoints
from gateway.api.services import Services
from tests.support.two_sites import marks

CONFIG = Path(__file__).parents[1] / "contract" / "schemathesis.toml"
HOOKS = Path(__file__).parents[1] / "contract" / "hooks.py"
_KINDS = {
    "sites": "site", "keys": "key", "domains": "domain", "contacts": "contact", "lists": "list", "imports": "import",
    "templates": "template", "messages": "message", "broadcasts": "broadcast", "lanes": "lane", "erasures": "erasure",
}  # fmt: skip


class Leak(msgspec.Struct, frozen=True):
    """A word of the other site in an answer, and to what."""

    request: str
    word: str


class Watched:
    """The application, with an eye on every byte that it answers."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.leaks: list[Leak] = []
        self.answers = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = bytearray()

        async def watch(event: Any) -> None:
            if event["type"] == "http.response.start":
                self.answers += 1
                for name, value in event.get("headers", ()):
                    body.extend(name + b": " + value + b"\n")
            body.extend(event.get("body", b""))
            await send(event)

        await self._app(scope, receive, watch)
        if scope["type"] == "http":
            request = f"{scope['method']} {scope['path']}?{scope['query_string'].decode(errors='replace')}"
            self.leaks += [Leak(request, found) for found in marks(bytes(body))]


@contextlib.asynccontextmanager
async def served(services: Services) -> AsyncIterator[tuple[str, Watched]]:
    """The API on a socket; its address, and the eye."""
    watched = Watched(create_app(services))
    server = uvicorn.Server(
        uvicorn.Config(
            watched,
            port=0,
            loop="none",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
        )
    )
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    serving = asyncio.create_task(server.serve())
    while not server.started:
        if serving.done():
            serving.result()
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", watched
    finally:
        server.should_exit = True
        await serving


def _write_config(folder: Path, ids: Mapping[str, Sequence[str]], senders: Sequence[str]) -> Path:
    """The configuration with words to draw from: ids of both sites, and senders."""
    lines = [CONFIG.read_text()]
    values = {**ids, "sender": senders}
    lines += [f"[dictionaries.{kind}]\nvalues = {msgspec.json.encode(list(some)).decode()}" for kind, some in values.items()]  # fmt: skip
    for endpoint in endpoints():
        bound = _bound(endpoint)
        if bound:
            lines.append(
                f'[[operations]]\ninclude-name = "{endpoint.method} {endpoint.path}"\n[operations.parameters]'
            )
            lines += [f'"{where}" = {{ dictionary = "{kind}", probability = 0.7 }}' for where, kind in bound.items()]  # fmt: skip
    path = folder / "schemathesis.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def _bound(endpoint: Endpoint) -> dict[str, str]:
    """Where a route takes ids, of what kind."""
    bound: dict[str, str] = {}
    part = endpoint.path.split("/")[2] if endpoint.path.startswith("/v1/") else ""
    if "{id}" in endpoint.path:
        bound["path.id"] = _KINDS[part]
    for name in ("contact", "email"):
        if f"{{{name}}}" in endpoint.path:
            bound[f"path.{name}"] = name
    for name in ("list", "broadcast", "site"):
        if name in endpoint.query:
            bound[f"query.{name}"] = name
    body = next(iter(get_args(endpoint.body)), endpoint.body)  # one, or a list of them
    fields = getattr(body, "__struct_encode_fields__", ())
    for name in ("list", "template", "contact", "site", "from"):
        if name in fields:
            bound[f"body.{name}"] = "sender" if name == "from" else name
    return bound


class Run(msgspec.Struct, frozen=True):
    """Whose key asks, and how much."""

    key: str
    examples: int
    """Cases of the fuzzing for each route, beside those of the coverage of its schema."""
    seed: int | None
    phases: str = "coverage,fuzzing,stateful"

    @property
    def again(self) -> str:
        """How to do the same."""
        return f"repeat this with: make fuzz EXAMPLES={self.examples} SEED={'none' if self.seed is None else self.seed}"


async def run(
    address: str, folder: Path, one: Run, ids: Mapping[str, Sequence[str]], senders: Sequence[str]
) -> tuple[int, str]:
    """Run it; its exit status and what it said. `folder` takes its files, `ids` and `senders` are drawn from."""
    arguments = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(_write_config(folder, ids, senders)),
        "run", f"{address}/openapi.json", "--header", f"Authorization: Bearer {one.key}",
        "--phases", one.phases, "--max-examples", str(one.examples), "--continue-on-failure", "--no-color", "--warnings", "off",
        *(["--generation-deterministic"] if one.seed is None else ["--seed", str(one.seed)]),
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(HOOKS)},
    )
    try:
        said, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    return process.returncode or 0, said.decode(errors="replace")


def mixed(own: Mapping[str, Sequence[str]], theirs: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Ids of both, the own ones twice as often."""
    return {kind: [*own[kind], *own[kind], *theirs[kind]] for kind in own}
