"""The examples of docs/submission.md, run as they stand there but for host, port and key."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from gateway.config import load
from tests.support.peers import require
from tests.support.submission import CERTIFICATE_NAME, Door, submission

DOCUMENT = Path(__file__).parents[2] / "docs" / "submission.md"


def example(language: str) -> str:
    """The only block of a language."""
    [block] = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return block


def here(text: str, door: Door, key: str) -> str:
    """An example, for a door of this machine."""
    port = str(door.section.port)
    return text.replace("gateway.example", CERTIFICATE_NAME).replace("587", port).replace("gw_KEY", key)


def ran(command: list[str], **env: str) -> str:
    """What a program printed; it must end well."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=dict(os.environ) | env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_settings_are_settings(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(example("toml"))
    section = load(file, {}).submission
    assert (section.port, section.tls_port, section.is_on) == (587, 465, True)


async def test_the_smtplib_example_sends(db: str, tmp_path: Path) -> None:
    async with submission(db, tmp_path) as door:
        site = await door.world.site(domain="acme.example")
        script = here(example("python"), door, site.key or "")
        # The certificate is checked, as the example asks: it vouches for itself.
        await asyncio.to_thread(
            ran, [sys.executable, "-c", script], SSL_CERT_FILE=door.section.certificate_file
        )
        [sent] = (await site.get("/v1/messages"))["data"]
        assert (sent["from"], sent["subject"]) == ("Acme <hello@acme.example>", "Your order 4711")


@pytest.mark.peer
async def test_the_swaks_example_sends(db: str, tmp_path: Path) -> None:
    require("swaks", "swaks")
    has_tls = subprocess.run(["perl", "-MNet::SSLeay", "-e1"], capture_output=True).returncode == 0
    async with submission(db, tmp_path, tls=has_tls) as door:
        site = await door.world.site(domain="acme.example")
        command = here(example("sh"), door, site.key or "").replace(" --tls ", " --tls " if has_tls else " ")
        said = await asyncio.to_thread(ran, ["sh", "-c", command])
        [sent] = (await site.get("/v1/messages"))["data"]
        assert f"queued as {sent['id']}" in said
        assert sent["subject"] == "Your order 4711"


@pytest.mark.peer
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_swaks_is_refused_with_a_wrong_key(db: str, tmp_path: Path, mechanism: str) -> None:
    require("swaks", "swaks")
    async with submission(db, tmp_path, tls=False) as door:
        command = [
            "swaks", "--server", "127.0.0.1", "--port", str(door.section.port), "--auth", mechanism, "--auth-user", "x",
            "--auth-password", "gw_wrong", "--from", "a@acme.example", "--to", "b@b.example",
        ]  # fmt: skip
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30)
        assert done.returncode == 28, "swaks: authentication failed"
        assert "535 5.7.8" in done.stdout


def test_every_setting_of_the_document_is_known() -> None:
    named = set(re.findall(r"`(\w+_\w+)`", DOCUMENT.read_text()))
    known = {field.name for field in msgspec.structs.fields(load(None, {}).submission)}
    assert {name for name in named if name.endswith(("_bytes", "_port", "_file", "_tls"))} <= known
