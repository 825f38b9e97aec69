"""Security 41: whatever happens to mail, no line of any process's log holds an address, a content, a key or a token."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gateway.store import sites
from gateway.store.tenancy import OPERATOR, as_site
from tests.support.fleet import SENDING_DOMAIN, Fleet
from tests.support.node import Node

pytestmark = pytest.mark.slow

LOCAL_PART = "confidential"
CONTENT = "Sesame-open"
WRONG_KEY = "gw_abcdefghjkmn_pqrstvwxyz0123456789abcdefghjkmn"
ADDRESS = re.compile(r"[\w.+-]{2,}@[\w-]+(\.[\w-]+)+")
HEARD: list[str] = []


async def _repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A receiver that says in its refusal all that it was told, as real ones do."""
    writer.write(b"220 echo.test\r\n")
    sender = ""
    while line := (await reader.readline()).decode("latin-1").strip():
        verb = line[:4].upper()
        if verb == "MAIL":
            sender = line
            HEARD.append(line[line.index("<") + 1 : line.index("@")])
        refused = f"550 5.1.1 {line}, {sender}: unknown user {line[8:]}"
        writer.write(
            {"RCPT": refused, "QUIT": "221 bye", "DATA": "503 no"}.get(verb, "250 ok").encode() + b"\r\n"
        )
        await writer.drain()
        if verb == "QUIT":
            break
    writer.close()


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    async with await asyncio.start_server(_repeat, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_a_scan_of_all_logs_finds_no_address_content_key_or_token(db: str, tmp_path: Path) -> None:
    async with echo() as port, Fleet(db, tmp_path) as fleet:
        fleet.route("echo.test", port)
        await fleet.submit([f"{LOCAL_PART}.first@d{i}.test" for i in range(5)])  # makes lanes, without limits
        async with as_site(fleet.pool, OPERATOR) as connection:
            _, key = await sites.issue_key(
                connection, fleet.site_id, "scenario", ["send", "read", "contacts"]
            )
        node = Node(fleet, "here", "api,dispatch,schedule")
        try:
            await node.start("--log-level", "debug")
            async with httpx.AsyncClient(base_url=node.api) as http:
                for who in ("", "unknown.", "grey1.", "policy.", "rate421.", "dropdot."):
                    for domain in ("d0.test", "echo.test"):
                        await _post(http, key, f"{who}{LOCAL_PART}@{domain}")
                await _post(http, key, f"{LOCAL_PART} not an address", 422)
                await _post(http, WRONG_KEY, f"{LOCAL_PART}@d1.test", 401)
                await http.get(f"/u/{CONTENT}{key}")
                await http.get(f"/c/{CONTENT}{key}")
                await _keep_and_forget(http, key)

            await fleet.settled()
        finally:
            await node.stop()
        log = node.log.read_text()

    assert HEARD, "the receiver that repeats what it hears was asked nothing"
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert {line["event"] for line in lines} >= {"process.started", "dispatcher.started", "api.request"}
    master_key = (tmp_path / "master.key").read_text().strip()
    for secret in (CONTENT, key, key.rpartition("_")[2], WRONG_KEY.rpartition("_")[2], master_key, *HEARD):
        found = [line for line in log.splitlines() if secret in line]
        assert not found, f"{secret!r} stands in the log:\n" + "\n".join(found[:3])
    told = [line for line in lines if line["level"] != "debug"]
    addressed = [line for line in told if LOCAL_PART in json.dumps(line) or ADDRESS.search(json.dumps(line))]
    assert not addressed, "addresses stand in the log:\n" + "\n".join(map(str, addressed[:3]))
    stray = [
        line for line in log.splitlines() if not line.startswith("{") and (LOCAL_PART in line or "@" in line)
    ]
    assert not stray, "lines that are no events hold addresses:\n" + "\n".join(stray[:3])


async def _keep_and_forget(http: httpx.AsyncClient, key: str) -> None:
    """A contact from its making to its erasure, while mail to it is open."""
    headers = {"authorization": f"Bearer {key}"}
    email = f"{LOCAL_PART}.contact@d0.test"
    made = await http.post("/v1/contacts", json={"email": email, "first_name": CONTENT}, headers=headers)
    assert made.status_code == 201, made.text
    again = await http.post("/v1/contacts", json={"email": email}, headers=headers)
    assert again.status_code == 409, again.text
    await _post(http, key, email)
    path = f"/v1/contacts/{made.json()['id']}"
    for what in ("export", "sent"):
        assert (await http.get(f"{path}/{what}", headers=headers)).status_code == 200
    assert (await http.post(f"{path}/actions/erase", headers=headers)).status_code == 202
    assert (await http.delete(f"/v1/suppressions/{email}", headers=headers)).status_code == 404


async def _post(http: httpx.AsyncClient, key: str, recipient: str, status: int = 202) -> None:
    answer = await http.post(
        "/v1/messages",
        json={
            "from": f"{LOCAL_PART}.sender@{SENDING_DOMAIN}", "to": recipient, "subject": CONTENT,
            "text": CONTENT, "html": f"<p>{CONTENT}</p>", "headers": {"X-Case": CONTENT},
        },
        headers={"authorization": f"Bearer {key}"},
    )  # fmt: skip
    assert answer.status_code == status, answer.text
