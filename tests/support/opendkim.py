"""OpenDKIM's verdict on messages, in a network of its own.

    verdicts = opendkim([message], {"s1._domainkey.acme.example": "v=DKIM1; …"})

`opendkim-testmsg` asks the resolver of /etc/resolv.conf for keys and has no option that says otherwise. So this module runs
itself as a child in a network and mount namespace: loopback up, a DNS server on its port 53, and a resolv.conf over the
machine's that names it. Nothing outside is touched, and all of it is gone with the child. Where the kernel gives nobody a
namespace (many containers), the test skips and says so: no package would mend that.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pytest

from tests.support.dns import scripted_dns
from tests.support.peers import require

_ROOT: Final = Path(__file__).resolve().parents[2]
_NO_NAMESPACE: Final = 77
_TIMEOUT_S: Final = 60.0
_STRING_LIMIT: Final = 255  # RFC 1035 §3.3
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


class Question(msgspec.Struct, frozen=True):
    """What the child is told."""

    program: str
    records: dict[str, str]
    """TXT records by name, without the final dot."""
    messages: list[bytes]


class Verdict(msgspec.Struct, frozen=True):
    """What opendkim-testmsg made of one message: it says nothing when a signature is good."""

    status: int
    said: str
    asked: list[str]
    """Names whose TXT record it asked for."""

    @property
    def good(self) -> bool:
        """Whether it took the message as signed."""
        return self.status == 0 and not self.said


def opendkim(messages: Sequence[bytes], records: Mapping[str, str]) -> list[Verdict]:
    """Have OpenDKIM verify messages (CRLF), with these TXT records in DNS.

    Raises:
        AssertionError: the child failed, with what it said.
    """
    question = Question(require("opendkim-testmsg", "opendkim-tools"), dict(records), list(messages))
    unshare = require("unshare", "util-linux")
    ways: list[tuple[str, ...]] = [("--user", "--map-root-user", "--net", "--mount")]
    if os.geteuid() == 0:
        ways.insert(0, ("--net", "--mount"))
    refused: list[str] = []
    for way in ways:
        child = subprocess.run(
            [unshare, *way, sys.executable, "-m", __name__],
            cwd=_ROOT, input=msgspec.json.encode(question), capture_output=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
        said = child.stderr.decode("utf-8", "replace")
        if child.returncode == 0:
            return msgspec.json.decode(child.stdout, type=list[Verdict])
        if child.returncode != _NO_NAMESPACE and not said.startswith("unshare:"):
            raise AssertionError(f"the verifier's child ended with {child.returncode}: {said}")
        refused.append(f"unshare {' '.join(way)}: {said.strip()}")
    pytest.skip(f"the kernel gives no network namespace: {'; '.join(refused)}")


# -- in the child ----------------------------------------------------------------------------------------------------


def _raise_loopback() -> None:
    """`ip link set lo up`, without iproute2 (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sh22x", b"lo", 0))
        (flags,) = struct.unpack_from("h", request, 16)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def _resolve_here(folder: Path) -> None:
    """Lay a resolv.conf over the machine's, in this mount namespace alone."""
    file = folder / "resolv.conf"
    file.write_text("nameserver 127.0.0.1\noptions timeout:5 attempts:2\n", encoding="ascii")
    bound = subprocess.run(["mount", "--bind", str(file), "/etc/resolv.conf"], capture_output=True, text=True)
    if bound.returncode:
        raise OSError(bound.stderr.strip())


def _strings(value: str) -> str:
    """A TXT record's value as master files have it: strings of at most 255 octets."""
    return " ".join(
        f'"{value[start : start + _STRING_LIMIT]}"' for start in range(0, len(value), _STRING_LIMIT)
    )


async def _verify(question: Question, folder: Path) -> list[Verdict]:
    verdicts: list[Verdict] = []
    async with scripted_dns(53) as dns:
        for name, value in question.records.items():
            dns.put(name, "TXT", _strings(value))
        for message in question.messages:
            dns.asked.clear()
            process = await asyncio.create_subprocess_exec(
                question.program, "-t", str(folder),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            said, _ = await process.communicate(message)
            asked = [name for name, rdtype in dns.asked if rdtype == "TXT"]
            verdicts.append(Verdict(process.returncode or 0, said.decode("utf-8", "replace"), asked))
    return verdicts


def main() -> None:
    """Be the child: a question on standard input, the verdicts on standard output."""
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    with tempfile.TemporaryDirectory(prefix="opendkim-") as name:
        try:
            _raise_loopback()
            _resolve_here(Path(name))
        except OSError as error:
            sys.stderr.write(str(error))
            sys.exit(_NO_NAMESPACE)
        sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(_verify(question, Path(name)))))


if __name__ == "__main__":
    main()
