"""The examples of docs/client.md, run as they stand there but for host, key and ids."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway import client
from gateway.mta.keys import load_or_create_master_key
from tests.support.api import CSV, Client
from tests.support.cli import cli_on
from tests.support.live_api import Live, live_api
from tests.support.peers import require

DOCUMENT = Path(__file__).parents[2] / "docs" / "client.md"


def examples(language: str) -> list[str]:
    """All blocks of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


@pytest.fixture
async def live(db: str, tmp_path: Path) -> AsyncIterator[Live]:
    async with live_api(db, tmp_path) as opened:
        yield opened


async def here(live: Live, site: Client, texts: list[str]) -> list[str]:
    """Examples, for this API and with ids of things that are there."""
    template = await site.post(
        "/v1/templates", {"name": "hello", "subject": "Hello {{ name }}", "text": "{{ shop }}"}
    )
    people = await site.post("/v1/lists", {"name": "everybody"})
    message = {"from": "hello@acme.example", "to": "ada@example.org", "subject": "s", "text": "t"}
    sent = await site.post("/v1/messages", message)
    names = {"template": template["id"], "list": people["id"]}
    draft = await site.post("/v1/broadcasts", {"name": "n", "from": "hello@acme.example", **names})
    known = {
        "https://gateway.example": live.url,
        "gw_KEY": site.key or "",
        "tpl_0000000000003": template["id"],
        "lst_0000000000002": people["id"],
        "msg_0000000001j4z": sent["id"],
        "brd_0000000000001": draft["id"],
        "curl -sS": "curl -sS --fail-with-body",
    }
    for written, real in known.items():
        texts = [text.replace(written, real) for text in texts]
    return texts


async def ran(command: list[str], folder: Path) -> str:
    """What a program printed; it must end well."""
    (folder / "people.csv").write_bytes(CSV + b"nobody,No,Body\n")
    environment = dict(os.environ) | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, cwd=folder, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def test_the_python_examples_run(live: Live, tmp_path: Path) -> None:
    site = await live.world.site(domain="acme.example")
    script = "\n".join(await here(live, site, examples("python")))
    said = await ran([sys.executable, "-c", script], tmp_path)
    assert "nobody was refused:" in said
    assert "2 0 1\nline 4, email:" in said
    assert "mallory@example.org marketing asked by phone" in said
    assert "/to " in said


async def test_the_curl_examples_run(live: Live, tmp_path: Path) -> None:
    require("curl", "curl")
    site = await live.world.site(domain="acme.example")
    texts = await here(live, site, examples("sh"))
    said = await ran(["sh", "-ec", "\n".join(texts)], tmp_path)
    assert '"state":"queued"' in said
    assert '"code":"no_dispatcher"' in said
    assert '"created":2' in said


async def test_the_way_to_a_first_key_is_as_told(
    db: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (text,) = examples("bash")
    start, *lines = (shlex.split(line, comments=True) for line in text.splitlines())
    assert start == ["gateway", "run", "&"]
    cli = cli_on(db, capsys, monkeypatch, tmp_path)
    load_or_create_master_key(tmp_path / "data/master.key")  # as the gateway does at its start
    said = ""
    for _, *arguments in lines:
        code, out, err = await cli(*arguments)
        assert (code, err) == (0, "")
        said += out
    for expected in ("site_0000000000001: Acme", "v=DKIM1; k=rsa; p=", "acme.example is verified", "gw_"):
        assert expected in said


def test_every_class_of_the_document_is_the_clients() -> None:
    table = DOCUMENT.read_text().split("| class |")[1].split("\n\n")[0]
    named = {
        word
        for row in table.splitlines()
        for word in re.findall(r"`([A-Z]\w+)`", row.split("|")[1] if "|" in row else "")
    }
    assert len(named) > 8
    assert named <= set(client.__all__)
