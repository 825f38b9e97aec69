"""The benchmark's Postfix with OpenDKIM: takes mail, signs it so that dkimpy agrees, hands on each once, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import dkim
import pytest

from bench.load.letters import letters, post
from bench.load.postfix import PACKAGES, Programs, find_programs, relay
from bench.load.postfix_config import Signing, main_cf, master_cf
from bench.processes import until
from bench.stage import FROM_DOMAIN
from gateway.mta.keys import generate_rsa_key, public_key_txt
from tests.support.overheard import overheard
from tests.support.peers import require
from tests.support.sink import SinkServer

pytestmark = pytest.mark.peer


class Interrupted(Exception):
    """What a benchmark may be ended by in the middle of a run."""


@pytest.fixture
def programs() -> Programs:
    for program, package in PACKAGES.items():
        require(program, package)
    if os.geteuid() != 0:
        pytest.skip("Postfix's master starts as root alone")
    return find_programs()


async def test_every_mail_arrives_once_with_a_signature_that_verifies(
    programs: Programs, tmp_path: Path
) -> None:
    key, mails = generate_rsa_key(), letters(20, 5)
    async with (
        SinkServer(tmp_path) as sink,
        overheard(sink.port) as (port, heard),
        relay(programs, port, Signing(FROM_DOMAIN, "s1", key)) as postfix,
    ):
        before = postfix.usage()
        await post(mails, postfix.port, 4)
        await until(postfix.is_empty, (), "the queue to be empty")
        used = postfix.usage()
        ledger = sink.ledger("delivery")

    assert ledger.accepted == {mail.delivery for mail in mails}
    assert not ledger.duplicates
    assert used.total_s > before.total_s
    assert {"master", "qmgr", "smtpd", "smtp", "opendkim"} <= used.by_program_s.keys()
    raw = bytes(next(said for said in heard if b"DATA\r\n" in said))
    message = raw.partition(b"DATA\r\n")[2].partition(b"\r\n.\r\n")[0].replace(b"\r\n..", b"\r\n.") + b"\r\n"
    assert b"a=rsa-sha256; c=relaxed/relaxed" in message
    txt = public_key_txt(key).encode()
    assert dkim.verify(
        message, dnsfunc=lambda name, timeout=5: txt if name.startswith(b"s1._domainkey") else None
    )


async def test_what_it_started_ends_with_it(programs: Programs, tmp_path: Path) -> None:
    async with SinkServer(tmp_path) as sink:
        with suppress(Interrupted):
            async with relay(programs, sink.port, Signing(FROM_DOMAIN, "s1", generate_rsa_key())) as postfix:
                groups = postfix.groups
                assert len(_running(groups)) > len(groups)
                raise Interrupted
    assert not _running(groups)


def test_postfix_knows_every_parameter_that_we_set(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text(main_cf(tmp_path, 2525, tmp_path / "socket"))
    (tmp_path / "master.cf").write_text(master_cf(2526))
    told = subprocess.run(
        [programs.postconf, "-c", str(tmp_path), "-n"], capture_output=True, text=True, check=True
    )
    assert not told.stderr  # postconf warns of unused and unknown ones


def _running(groups: tuple[int, ...]) -> list[str]:
    """Processes of these groups that live (a zombie does not)."""
    found: list[str] = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            state, _, group = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[:3]
            if int(group) in groups and state != "Z":
                found.append(name)
    return found
