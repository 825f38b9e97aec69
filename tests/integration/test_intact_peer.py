"""What is submitted arrives unchanged and signed, as other people's programs read it: Postfix takes it, dkimpy and OpenDKIM verify it.

The whole way is real: the API, a dispatcher process, and Postfix's receiver, or a Postfix that hands on to it. The letters are
made to be spoilt: letters beyond ASCII everywhere, lines that begin with dots, end with spaces or are too long for SMTP, files of
all octets; and each transfer encoding is there.
"""

from __future__ import annotations

import base64
import os
import pwd
import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import dkim
import msgspec
import pytest
import pytest_asyncio

from bench.load.postfix import PACKAGES, find_programs, relay
from bench.processes import until
from gateway.mta.keys import generate_rsa_key, public_key_txt
from tests.support.api import Client, open_world
from tests.support.dispatcher_process import spawn
from tests.support.fleet import DispatcherProcess
from tests.support.opendkim import opendkim
from tests.support.peers import require, smtp_sink
from tests.support.postgres import Cluster
from tests.support.reader import defects, files, outline, parsed, texts

pytestmark = pytest.mark.peer

NAME: Final = "Bücher & Söhne 📚"
SUBJECT: Final = (
    "Grüße: die Rechnung für März ist da 🎉, und sie ist so lang, dass der Betreff mehrere Zeilen braucht"
)
TEXT: Final = (
    "Liebe Änne 👋,\n\n.ein Punkt am Anfang\n..zwei\n.\nFrom here on\nEnde mit Leerzeichen   \n\tTab\t\n"
    "a=b =20 = \n" + "eine lange Zeile ohne Ende " * 60 + "\n-- \nGruß\n"
)
GREEK: Final = "Καλημέρα, {{ name }}, από {{ ort }} 🏛\n.\n" * 5
ASCII: Final = ".dots\n..\n.\n\nFrom here on \n=20\n\n\n  the end"
HTML: Final = (
    "<!doctype html>\n<html><body>\n<p>Grüße, Änne 👋</p>\n<img src=\"cid:logo@acme.example\" alt='Bücher'>\n.\n"
    + "<td>x</td>" * 200
    + "\n</body></html>\n"
)
IMAGE: Final = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20
INVOICE: Final = b"%PDF-1.7\n\n.\r\n..\r\n" + bytes(reversed(range(256))) * 40
FILES: Final = (
    ("Firmenzeichen.png", "image/png", IMAGE, "logo@acme.example"),
    ("Rechnung März – Größe 📎.pdf", "application/pdf", INVOICE, ""),
    ('a "quoted" name.csv', "text/csv", "Straße;Größe\r\n".encode(), ""),
)

STRUCTURE: Final = """
multipart/mixed
  multipart/alternative
    text/plain utf-8 {text}
    multipart/related
      text/html utf-8 quoted-printable
      image/png base64 inline 'Firmenzeichen.png' <logo@acme.example>
  application/pdf base64 attachment 'Rechnung März – Größe 📎.pdf'
  text/csv base64 attachment 'a "quoted" name.csv'
"""


class Arrived(msgspec.Struct, frozen=True):
    """What lay at the receiver, CRLF as on the wire, and what there is in DNS."""

    plain: bytes
    """Content of its own, as it stands."""
    filled: bytes
    """With variables, as marketing."""
    bare: bytes
    """A single part."""
    records: dict[str, str]

    @property
    def wires(self) -> tuple[bytes, bytes, bytes]:
        """All of them, in the order of their submission."""
        return self.plain, self.filled, self.bare


def letter(**changes: Any) -> dict[str, Any]:
    attached = [
        {"filename": name, "content_type": kind, "content": base64.b64encode(data).decode(), "content_id": content_id}
        for name, kind, data, content_id in FILES
    ]  # fmt: skip
    return {
        "from": {"email": "post@acme.example", "name": NAME}, "to": "ann@bücher.example", "subject": SUBJECT,
        "text": TEXT, "html": HTML, "reply_to": "Änne Groß <antwort@acme.example>", "headers": {"X-Anlass": "März 🌷"},
        "attachments": attached,
    } | changes  # fmt: skip


LETTERS: Final = (
    letter(),
    letter(
        to={"email": "Zoe.Test@bücher.example", "variables": {"name": "Zoë 🦊 <&>", "ort": "Köln"}}, stream="marketing",
        subject="Hallo {{ name }} aus {{ ort }} 🎈", text=GREEK, html=HTML.replace("Änne", "{{ name }} aus {{ ort }}"),
    ),
    letter(to="bob@bücher.example", text=ASCII, html="", attachments=[]),
)  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["to a sink", "through Postfix"])
async def arrived(
    request: pytest.FixtureRequest, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Arrived]:
    """The letters at the receiver, each once."""
    relayed = request.param == "through Postfix"
    if relayed:
        for program, package in PACKAGES.items():
            require(program, package)
        if os.geteuid() != 0:
            pytest.skip("Postfix's master starts as root alone")
    with tempfile.TemporaryDirectory(prefix="arrived-") as name:
        inbox = Path(name)  # none of pytest's folders: they are closed to the sink's user
        if os.geteuid() == 0:
            os.chown(inbox, pwd.getpwnam("nobody").pw_uid, -1)
        async with smtp_sink("-d", f"{inbox}/mail.") as sink, AsyncExitStack() as stack:
            dsn = await cluster.create_database()
            stack.push_async_callback(cluster.drop_database, dsn)
            folder = tmp_path_factory.mktemp("gateway")
            if relayed:
                postfix = await stack.enter_async_context(relay(find_programs(), sink, None))
                records = await _send(dsn, folder, postfix.port)
                await until(postfix.is_empty, (), "Postfix to hand all of it on")
            else:
                records = await _send(dsn, folder, sink)
        dumps = [file.read_bytes() for file in inbox.iterdir()]
    assert len(dumps) == len(LETTERS), "each once"
    # smtp-sink drops each CR, doubles no dot, and ends a dump with an empty line of its own.
    wires = [dump.removesuffix(b"\n").replace(b"\n", b"\r\n") for dump in dumps]
    plain, filled, bare = sorted(wires, key=lambda wire: int(parsed(wire)["X-Gateway-Delivery"]))
    yield Arrived(plain, filled, bare, records)


async def _send(dsn: str, folder: Path, port: int) -> dict[str, str]:
    """Submit the letters over the API and have a dispatcher deliver them to a port; the TXT records that go with them."""
    platform = generate_rsa_key()
    (folder / "platform.pem").write_bytes(platform)
    config = folder / "gateway.toml"
    config.write_text(
        f'[database]\ndsn = "{dsn}"\ndata_dir = "{folder}"\n[route]\ndefault = "127.0.0.1:{port}"\n'
        f'[mail]\nplatform_domain = "platform.example"\nplatform_selector = "p1"\nplatform_key_file = "{folder}/platform.pem"\n'
    )
    async with open_world(dsn, folder) as world:
        site = await world.operator.post("/v1/sites", {"name": "Acme"})
        key = await world.operator.post("/v1/keys", {"site": site["id"], "scopes": ["admin"]})
        app = Client(world.http, key["key"])
        domain = await app.post("/v1/domains", {"name": "acme.example"})
        await world.operator.post(f"/v1/domains/{domain['id']}/actions/mark_verified")
        ids = [(await app.post("/v1/messages", body))["id"] for body in LETTERS]
        await world.services.waker.flush()
        process = DispatcherProcess("here", spawn(["--config", str(config)], folder / "log"), folder / "log")

        async def delivered() -> bool:
            assert process.status is None, process.said
            shown = [await app.get(f"/v1/messages/{id_}") for id_ in ids]
            states = {delivery["state"] for message in shown for delivery in message["deliveries"]}
            assert states <= {"queued", "leased", "delivered"}, f"{shown}\n{process.said}"
            return states == {"delivered"}

        try:
            await until(delivered, (), "the letters to be delivered", poll_s=0.02)
        finally:
            if process.status is None:
                await process.kill()
    published = {record["name"]: record["value"] for record in domain["records"]}
    return published | {"p1._domainkey.platform.example": public_key_txt(platform)}


def own(wire: bytes) -> bytes:
    """The message that we sent, without the trace fields that others put before it (RFC 5321 §4.4)."""
    return wire[wire.index(b"DKIM-Signature:") :]


def alone(wire: bytes) -> dict[str, bytes]:
    """By signing domain: the message with no signature but that one."""
    message = own(wire)
    fields = re.findall(rb"DKIM-Signature:.*?\r\n(?![ \t])", message, re.DOTALL)
    rest = message[sum(map(len, fields)) :]
    return {_domain(field): field + rest for field in fields}


def _domain(field: bytes) -> str:
    found = re.search(rb"[;\s]d=([^;\s]+)", field)
    assert found
    return found[1].decode()


def changed(wire: bytes) -> list[bytes]:
    """The message with one octet of its body changed: the first, those at each third, the last before the line end."""
    body = wire.index(b"\r\n\r\n") + 4
    places = [body, *(body + (len(wire) - body) * third // 3 for third in (1, 2)), len(wire) - 3]
    return [wire[:place] + bytes([wire[place] ^ 1]) + wire[place + 1 :] for place in places]


def dkimpy(wire: bytes, records: Mapping[str, str]) -> bool:
    """Whether dkimpy takes the first signature."""
    found = {f"{name}.".encode(): value.encode() for name, value in records.items()}
    try:
        return dkim.DKIM(wire).verify(dnsfunc=lambda name, timeout=5: found.get(name))
    except dkim.ValidationError:
        return False


def test_every_part_arrives_where_it_belongs(arrived: Arrived) -> None:
    plain, filled, bare = map(parsed, arrived.wires)
    assert outline(plain) == STRUCTURE.format(text="quoted-printable").strip().split("\n")
    assert outline(filled) == STRUCTURE.format(text="base64").strip().split("\n")
    assert outline(bare) == ["text/plain utf-8 7bit"]
    assert files(plain) == files(filled) == list(FILES)
    assert not [defect for message in (plain, filled, bare) for defect in defects(message)]


def test_any_receiver_can_take_it(arrived: Arrived) -> None:
    for wire in arrived.wires:
        assert own(wire).isascii()
        assert max(map(len, own(wire).split(b"\r\n"))) <= 998  # RFC 5322 §2.1.1


def test_what_people_read_is_what_was_submitted(arrived: Arrived) -> None:
    message = parsed(arrived.plain)
    assert (message["Subject"], message["X-Anlass"]) == (SUBJECT, "März 🌷")
    assert [(one.display_name, one.addr_spec) for one in message["From"].addresses] == [
        (NAME, "post@acme.example")
    ]
    assert [(one.display_name, one.addr_spec) for one in message["Reply-To"].addresses] == [
        ("Änne Groß", "antwort@acme.example")
    ]
    assert texts(message) == {"plain": TEXT, "html": HTML}
    assert texts(parsed(arrived.bare)) == {"plain": ASCII + "\n"}, "a line of SMTP has an end"


def test_variables_arrive_as_they_were_given(arrived: Arrived) -> None:
    message = parsed(arrived.filled)
    assert message["Subject"] == "Hallo Zoë 🦊 <&> aus Köln 🎈"
    assert texts(message) == {
        "plain": GREEK.replace("{{ name }}", "Zoë 🦊 <&>").replace("{{ ort }}", "Köln"),
        "html": HTML.replace("Änne", "Zoë 🦊 &lt;&amp;&gt; aus Köln"),
    }


def test_a_domain_beyond_ascii_goes_out_in_a_labels(arrived: Arrived) -> None:
    for wire, local in zip(arrived.wires, ("ann", "Zoe.Test", "bob"), strict=True):
        message = parsed(wire)
        assert message["To"] == f"{local}@xn--bcher-kva.example"
        assert (
            message["X-Rcpt-Args"].partition(">")[0] == f"<{local}@xn--bcher-kva.example"
        )  # smtp-sink's: the envelope


def test_dkimpy_takes_every_signature(arrived: Arrived) -> None:
    for wire in arrived.wires:
        signed = alone(wire)
        assert list(signed) == ["acme.example", "platform.example"]
        assert all(dkimpy(one, arrived.records) for one in signed.values())


def test_dkimpy_refuses_a_changed_octet(arrived: Arrived) -> None:
    spoilt = [one for wire in arrived.wires for signed in alone(wire).values() for one in changed(signed)]
    assert not any(dkimpy(one, arrived.records) for one in spoilt)


def test_opendkim_takes_every_signature(arrived: Arrived) -> None:
    signed = [pair for wire in arrived.wires for pair in alone(wire).items()]
    verdicts = opendkim([message for _, message in signed], arrived.records)
    assert all(verdict.good for verdict in verdicts), verdicts
    for (domain, _), verdict in zip(signed, verdicts, strict=True):
        assert [name.partition("._domainkey.")[2] for name in verdict.asked] == [domain]


def test_opendkim_refuses_a_changed_octet(arrived: Arrived) -> None:
    spoilt = [one for wire in arrived.wires for signed in alone(wire).values() for one in changed(signed)]
    verdicts = opendkim([*spoilt, *map(own, arrived.wires)], arrived.records)
    for verdict in verdicts[: len(spoilt)]:
        assert "Bad signature" in verdict.said, verdict
    assert all(verdict.good for verdict in verdicts[len(spoilt) :]), "and the messages whole are good"
