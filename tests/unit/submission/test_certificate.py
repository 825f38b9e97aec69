"""The door's certificate: said clearly when it cannot be used, and taken anew when it was renewed."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from bench.load.certificate import pem
from gateway.config import SubmissionConfig
from gateway.errors import ConfigError
from gateway.submission.door import renew, server_context
from tests.support.clock import FakeClock


def section(file: Path) -> SubmissionConfig:
    return SubmissionConfig(certificate_file=str(file), key_file=str(file))


def shown(context: ssl.SSLContext) -> bytes:
    """The certificate that a client is shown, by a handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    client = trusting.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    found = client.getpeercert(binary_form=True)
    assert found is not None
    return found


def test_without_a_certificate_there_is_no_tls() -> None:
    assert server_context(SubmissionConfig()) is None


@pytest.mark.parametrize("content", [None, b"words", b"-----BEGIN CERTIFICATE-----\n"])
def test_a_certificate_that_cannot_be_used_names_its_key(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "mail.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        server_context(section(file))
    assert caught.value.key == "submission.certificate_file"
    assert str(file) in str(caught.value)


async def test_a_renewed_certificate_is_taken_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    file, clock = tmp_path / "mail.pem", FakeClock()
    file.write_bytes(pem("first.example"))
    context = server_context(section(file))
    assert context is not None
    first = shown(context)
    renewing = asyncio.create_task(renew(context, section(file), clock))
    await clock.advance(60)
    assert shown(context) == first

    _replace(file, b"half a file")
    await clock.advance(60)
    assert shown(context) == first

    _replace(file, pem("second.example"))
    await clock.advance(60)
    assert b"second.example" in shown(context)
    renewing.cancel()


def _replace(file: Path, content: bytes) -> None:
    draft = file.with_suffix(".new")
    draft.write_bytes(content)
    draft.rename(file)
