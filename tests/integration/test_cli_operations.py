"""What operators do from the command line: domains, one message, broadcasts, lanes, suppressions; on a real database."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.app.exits import Exit
from gateway.cli.lanes import reason
from gateway.model.why import Code
from gateway.store.lane_report import Fleet, LaneReport
from tests.support.api import make_broadcast, open_world
from tests.support.cli import Cli, cli_on
from tests.support.dns import Fails, scripted_dns

GROUPS: dict[str, tuple[str, ...]] = {
    "sites": ("create", "list"), "keys": ("create", "list", "revoke"), "domains": ("add", "list", "records", "verify"),
    "broadcast": ("list", "status", "pause", "resume", "cancel"), "suppressions": ("list", "add", "remove", "import", "export"),
    "lanes": ("list", "suspend", "resume", "limit", "unlimit"),
    "send": (), "books": (), "explain": (), "migrate": (), "check-config": (), "openapi": (), "run": (), "reconcile": (), "trace": (),
}  # fmt: skip


@pytest.fixture
def cli(db: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    return cli_on(db, capsys, monkeypatch, tmp_path)


@pytest.fixture
async def site(cli: Cli) -> str:
    return (await cli.json("sites", "create", "Acme"))["id"]


@pytest.fixture
async def verified(cli: Cli, site: str, tmp_path: Path) -> str:
    """A site that may send from acme.example."""
    make_master_key(tmp_path)
    await cli.json("domains", "add", "acme.example", "--site", site)
    await cli.json("domains", "verify", "acme.example", "--vouch")
    return site


def make_master_key(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data/master.key").write_text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")
    (folder / "data/master.key").chmod(0o600)


SEND = (
    "send",
    "--from",
    "Acme <hello@acme.example>",
    "--to",
    "ada@one.example",
    "--subject",
    "s",
    "--text",
    "t",
)


@pytest.mark.parametrize(
    "arguments", [("sites", "create", " "), ("sites", "create", "A", "--time-zone", "Mars/Base"), ("keys", "create", "--operator", "--name", "x" * 201),
                  ("domains", "add", "no domain", "--site", "1"), ("domains", "add", "acme.example"), ("domains", "list", "--site", "x"),
                  ("domains", "records", "dom_x"), ("domains", "list", "--site", str(1 << 40)), ("send", "--site", "1"),
                  (*SEND, "--site", "1", "--variables", "[]"), (*SEND, "--site", "1", "--idempotency-key", "é"),
                  ("send", "--site", "1", "--from", "a@a.example", "--to", "b@b.example", "--text", "@none.txt"),
                  ("broadcast", "pause", "lst_0000000000001"), ("broadcast", "status"), ("lanes", "list", "--limit", "0"),
                  ("lanes", "list", "--lane", "no domain"), ("lanes", "suspend", "a.example"),
                  ("lanes", "suspend", "a.example", "--why", "w", "--seconds", "nan"), ("lanes", "suspend", "a.example", "--why", " "), ("lanes", "limit", "a.example", "--seconds", "9", "--why", "w"),
                  ("lanes", "limit", "a.example", "--seconds", "9", "--why", "w", "--rate", "0"),
                  ("suppressions", "add", "nobody", "--site", "1"), ("suppressions", "add", "a@a.example", "--site", "1", "--scope", "some"),
                  ("suppressions", "list", "--site", "1", "--limit", "1001"), ("suppressions", "remove", "nobody", "--site", "1")],
)  # fmt: skip
async def test_a_wrong_command_line_exits_with_2(cli: Cli, arguments: tuple[str, ...]) -> None:
    code, _, err = await cli(*arguments)
    assert code == Exit.USAGE, err
    assert err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments", [("domains", "list", "--site", "99"), ("domains", "records", "nobody.example"), ("domains", "records", "99"),
                  ("domains", "verify", str(1 << 40)), ("broadcast", "list", "--site", "99"), ("broadcast", "pause", "99"),
                  ("broadcast", "status", "99"), ("broadcast", "cancel", str(1 << 70)), ("lanes", "resume", "nobody.example"),
                  ("lanes", "suspend", "nobody.example", "--why", "w"), ("lanes", "list", "--lane", "nobody.example"),
                  ("suppressions", "list", "--site", "99"), ("suppressions", "add", "a@a.example", "--site", "99"),
                  ("suppressions", "import", "none.csv", "--site", "1"), (*SEND, "--site", "99")],
)  # fmt: skip
async def test_what_is_not_there_is_one_line_and_exits_with_1(cli: Cli, arguments: tuple[str, ...]) -> None:
    code, out, err = await cli(*arguments)
    assert (code, out, err.count("\n")) == (Exit.FAILED, "", 1), err


async def test_a_dsn_that_is_none_is_wrong_configuration(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_DSN", "db:5432/gateway")
    for command in (("sites", "list"), ("lanes", "list"), ("domains", "list", "--site", "1"), ("migrate",)):
        code, _, err = await cli(*command)
        assert (code, err.count("\n"), "expected postgresql://" in err) == (Exit.CONFIG, 1, True), err


async def test_every_command_has_help_with_an_example(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """And every command of a group."""
    for module in [name for name in sys.modules if name.startswith("gateway.cli.")]:
        monkeypatch.delitem(
            sys.modules, module
        )  # as in a process of its own: the list of all puts its line in place of a group's help
    for group, commands in GROUPS.items():
        for command in ((), *((one,) for one in commands)):
            code, out, _ = await cli(group, *command, "--help")
            assert (code, "Example: " in out) == (Exit.OK, True), (group, command)


async def test_a_domain_is_added_shown_and_verified_by_its_records(
    cli: Cli, site: str, tmp_path: Path
) -> None:
    make_master_key(tmp_path)
    made = await cli.json("domains", "add", "Acme.Example", "--site", site, "--ed25519")
    assert (made["name"], made["status"], made["site"]) == ("acme.example", "pending", site)
    assert [record["signs"] for record in made["records"]] == [True, False, True]
    code, out, _ = await cli("domains", "records", "acme.example")
    assert code == Exit.OK
    for record in made["records"]:
        assert record["name"] in out
        assert record["value"] in out
    signing, spare, second = made["records"]
    async with scripted_dns() as dns:
        (tmp_path / "g.toml").write_text(f'[mx]\nnameservers = ["{dns.nameserver}"]\ntimeout_s = 5\n')
        verify = ("domains", "verify", "acme.example", "--config", "g.toml")

        def publish(record: dict[str, Any], value: str) -> None:
            dns.put(
                record["name"], "TXT", " ".join(f'"{value[i : i + 200]}"' for i in range(0, len(value), 200))
            )

        publish(signing, signing["value"].replace("k=rsa; ", ""))  # as providers write it: rsa is the default
        publish(second, spare["value"])
        code, out, _ = await cli(*verify)
        assert code == Exit.FAILED
        states = {line.split()[0]: line.split()[2] for line in out.splitlines() if "_domainkey" in line}
        assert states == {signing["name"]: "found", spare["name"]: "missing", second["name"]: "other"}
        dns.behaviours[second["name"]] = Fails()
        code, out, _ = await cli(*verify, "--json")
        document = json.loads(out)
        assert (code, document["verified_now"], document["status"]) == (Exit.FAILED, False, "pending")
        assert document["records"][2]["state"] == "unanswered"
        del dns.behaviours[second["name"]]
        publish(second, second["value"])
        assert (await cli.json(*verify))["status"] == "verified"
    (listed,) = await cli.json("domains", "list", "--site", site)
    assert (listed["id"], listed["status"]) == (made["id"], "verified")
    code, _, err = await cli("domains", "add", "acme.example", "--site", site)
    assert (code, "a domain has one owner" in err) == (Exit.FAILED, True)


async def test_beside_a_configured_database_no_envelope_key_is_made(
    cli: Cli, site: str, tmp_path: Path
) -> None:
    code, _, err = await cli("domains", "add", "acme.example", "--site", site)
    assert code == Exit.CONFIG
    assert "run this where the gateway runs" in err
    assert not (tmp_path / "data/master.key").exists()


async def test_one_message_is_sent_and_known_again(cli: Cli, verified: str, pool: asyncpg.Pool) -> None:
    await cli.json("suppressions", "add", "bob@two.example", "--site", verified)
    command = (*SEND, "--site", verified, "--to", "bob@two.example", "--idempotency-key", "k")
    sent = await cli.json(*command)
    assert [(one["to"], one["state"]) for one in sent["deliveries"]] == [
        ("ada@one.example", "queued"),
        ("bob@two.example", "suppressed"),
    ]
    assert await cli.json(*command) == sent | {"replayed": True}
    assert await pool.fetchval("SELECT count(*) FROM message") == 1
    woken = "SELECT count(*) FROM queue q JOIN flow f ON f.id = q.flow_id WHERE f.active"
    assert await pool.fetchval(woken) == 1, "woken before the command ended"
    document = await cli.json("explain", sent["id"])
    assert document["data"][0]["reasons"][0]["code"] == "no_dispatcher"
    code, _, err = await cli(*command, "--stream", "marketing")
    assert (code, "Idempotency-Key was used with another request" in err) == (Exit.FAILED, True)


async def test_a_message_from_files_with_variables(
    cli: Cli, verified: str, pool: asyncpg.Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.html").write_text("<p>Hello {{ name }}")
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello {{ name }}"))
    code, out, _ = await cli(
        "send", "--site", verified, "--from", "hello@acme.example", "--to", "ada@one.example", "--subject", "Hello {{ name }}",
        "--text", "@-", "--html", "@t.html", "--variables", '{"name": "Ada"}',
    )  # fmt: skip
    assert code == Exit.OK
    assert "accepted" in out
    row = await pool.fetchrow("SELECT html, text, template FROM message")
    assert tuple(row or ()) == ("<p>Hello {{ name }}", "Hello {{ name }}", "inline")
    assert json.loads(await pool.fetchval("SELECT variables FROM queue")) == {"name": "Ada"}


async def test_a_message_is_refused_as_the_api_refuses_it(
    cli: Cli, verified: str, pool: asyncpg.Pool
) -> None:
    for change, says in (
        (("--from", "a@other.example"), "other.example is no verified domain of this site"),
        (("--to", "nobody"), "/to/1"),
        (("--template", "tpl_0000000000009"), "a template brings subject, html and text"),
    ):
        code, _, err = await cli(
            *_without(SEND, change[0] if change[0] == "--from" else ""), "--site", verified, *change
        )
        assert (code, says in err) == (Exit.FAILED, True), err
    await pool.execute("UPDATE site SET status = 'suspended'")
    code, _, err = await cli(*SEND, "--site", verified)
    assert (code, err) == (Exit.FAILED, "gateway: this site is suspended\n")
    assert await pool.fetchval("SELECT count(*) FROM message") == 0


async def test_a_broadcast_is_shown_paused_resumed_and_cancelled(cli: Cli, db: str, tmp_path: Path) -> None:
    async with open_world(db, tmp_path / "world") as world:
        site = await world.site(domain="acme.example")
        draft = await make_broadcast(site, "acme.example")
        await site.post(f"/v1/broadcasts/{draft['id']}/actions/send", {})
    which = draft["id"]
    (listed,) = await cli.json("broadcast", "list", "--site", str(site.site_id))
    assert (listed["id"], listed["state"]) == (which, "preparing")
    code, out, err = await cli("broadcast", "pause", which)
    assert (code, out, err) == (Exit.OK, f"{which}: news: paused (by user)\n", "")
    code, _, err = await cli("broadcast", "pause", which)
    assert (code, "cannot go from paused to paused" in err) == (Exit.FAILED, True)
    assert (await cli.json("broadcast", "resume", which))["state"] == "sending"
    assert (await cli.json("broadcast", "cancel", which))["actions"] == []
    status = await cli.json("broadcast", "status", which, "--follow")
    assert (status["state"], status["accepted"]) == ("cancelled", 0)
    code, out, _ = await cli("broadcast", "status", which)
    assert (code, "0 accepted so far, 0 ended" in out) == (Exit.OK, True)


async def test_lanes_are_shown_suspended_and_resumed(cli: Cli, verified: str, pool: asyncpg.Pool) -> None:
    await cli.json(*SEND, "--site", verified)
    await cli.json(*SEND, "--site", verified)
    found = await cli.json("lanes", "list")
    (lane,) = found["data"]
    assert (lane["name"], lane["queued"], lane["why"]) == ("one.example", 2, "no_dispatcher")
    assert (found["dispatchers"], found["stopped"], found["has_more"]) == (0, None, False)
    code, out, _ = await cli(
        "lanes", "suspend", "One.example", "--seconds", "3600", "--why", "they asked us to"
    )
    assert (code, out.startswith("one.example is suspended until 20")) == (Exit.OK, True)
    code, out, _ = await cli("lanes", "list", "--lane", "one.example")
    assert "lane_suspended: an operator: they asked us to" in out
    assert "no dispatcher is running" in out
    assert await pool.fetchval("SELECT ready_at > now() + interval '59 minutes' FROM lane_state")
    assert await cli.json("lanes", "resume", "one.example") == {
        "lane": "one.example", "suspended": False, "changed": True,
    }  # fmt: skip
    assert await pool.fetchval(
        "SELECT ready_at BETWEEN now() - interval '1 minute' AND now() FROM lane_state"
    )
    code, out, _ = await cli("lanes", "resume", "one.example")
    assert (code, out) == (Exit.OK, "one.example was not suspended\n")
    assert (await cli.json("lanes", "suspend", "one.example", "--why", "for good"))["until"] is None
    message = await pool.fetchval("SELECT max(message_id) FROM queue")
    document = await cli.json("explain", str(message))
    assert "an operator: for good" in document["data"][0]["reasons"][0]["text"]
    await pool.execute("DELETE FROM queue")
    assert [one["why"] for one in (await cli.json("lanes", "list"))["data"]] == ["lane_suspended"]
    await cli.json("lanes", "resume", "one.example")
    assert (await cli.json("lanes", "list"))["data"] == []
    limits = (
        "one.example",
        "--rate",
        "0.5",
        "--connections",
        "1",
        "--seconds",
        "3600",
        "--why",
        "they defer us",
    )
    limited = await cli.json("lanes", "limit", *limits)
    assert (limited["rate_per_s"], limited["max_connections"]) == (0.5, 1)
    code, out, _ = await cli("lanes", "limit", *limits)
    assert (code, out.startswith("one.example: 0.5 a second, ")) == (Exit.OK, True)
    assert await cli.json("lanes", "unlimit", "one.example") == {"lane": "one.example", "changed": True}
    code, out, _ = await cli("lanes", "unlimit", "one.example")
    assert (code, out) == (Exit.OK, "one.example has no limits of an operator\n")
    assert [one["why"] for one in (await cli.json("lanes", "list", "--idle"))["data"]] == [None]


async def test_suppressions_are_added_listed_and_removed(cli: Cli, site: str) -> None:
    added = await cli.json(
        "suppressions", "add", "Mallory@One.example", "--site", site, "--scope", "marketing"
    )
    assert (added["email"], added["scope"], added["reason"]) == ("mallory@one.example", "marketing", "manual")
    await cli.json("suppressions", "add", "eve@one.example", "--site", site)
    page = await cli.json("suppressions", "list", "--site", site, "--limit", "1")
    assert ([one["email"] for one in page["data"]], page["next"]) == (["eve@one.example"], "eve@one.example")
    rest = await cli.json("suppressions", "list", "--site", site, "--after", page["next"])
    assert [one["email"] for one in rest["data"]] == ["mallory@one.example"]
    code, out, _ = await cli("suppressions", "remove", "mallory@one.example", "--site", site)
    assert (code, out) == (Exit.OK, "mallory@one.example is not suppressed any more\n")
    code, _, err = await cli("suppressions", "remove", "mallory@one.example", "--site", site)
    assert (code, err) == (Exit.FAILED, "gateway: this address is not suppressed\n")


async def test_a_list_is_imported_in_batches_and_exported_as_it_was(
    cli: Cli, site: str, tmp_path: Path
) -> None:
    lines = ["email,scope,reason,evidence", 'mallory@one.example,marketing,complaint,"said ""no"", twice"']
    lines += [f"u{number}@one.example,,," for number in range(1_500)]
    (tmp_path / "old.csv").write_text("\r\n".join(lines) + "\r\n")
    told = await cli.json("suppressions", "import", "old.csv", "--site", site, "--reason", "old system")
    assert told == {"rows": 1_501, "added": 1_501, "known": 0, "refused": 0, "errors": []}
    (tmp_path / "more.txt").write_text("U7@one.example\n\nnobody\nnew@one.example\n")
    code, out, _ = await cli("suppressions", "import", "more.txt", "--site", site)
    assert code == Exit.FAILED, "a line was refused"
    assert out.splitlines()[0].startswith("line 3: email: ")
    assert out.splitlines()[0].endswith(": nobody")
    assert out.splitlines()[-1] == "3 read, 1 added, 1 known already, 1 refused"
    code, out, _ = await cli("suppressions", "export", "--site", site)
    rows = {row["email"]: row for row in csv.DictReader(io.StringIO(out))}
    assert (code, len(rows)) == (Exit.OK, 1_502)
    assert (rows["mallory@one.example"]["scope"], rows["mallory@one.example"]["evidence"]) == (
        "marketing",
        'said "no", twice',
    )
    assert rows["u7@one.example"]["reason"] == "old system"
    code, out, _ = await cli("suppressions", "export", "all.csv", "--site", site)
    assert (code, out) == (Exit.OK, "all.csv: 1,502 suppressions\n")
    other = (await cli.json("sites", "create", "Other"))["id"]
    told = await cli.json("suppressions", "import", "all.csv", "--site", other)
    assert (told["added"], told["refused"]) == (1_502, 0)
    (tmp_path / "names.csv").write_text("name,scope\nAda,all\n")
    code, out, err = await cli("suppressions", "import", "names.csv", "--site", site)
    assert (code, out, err) == (
        Exit.FAILED,
        "",
        "gateway: names.csv: no column email; there are name, scope; expected one address a line, or a header with a column email\n",
    )
    code, _, _ = await cli("suppressions", "export", "all.csv", "--site", "99")
    assert (code, (tmp_path / "all.csv").stat().st_size > 0) == (Exit.FAILED, True)


async def test_a_list_comes_from_stdin_and_nobody_has_to_read_all_of_it(
    cli: Cli, db: str, site: str, tmp_path: Path
) -> None:
    """In processes of their own, between real pipes."""
    addresses = "".join(f"u{number}@one.example\n" for number in range(3_000))
    environment = os.environ | {"GATEWAY_DSN": db, "COLUMNS": "80"}
    command = [sys.executable, "-m", "gateway.cli", "suppressions"]
    made = await asyncio.to_thread(
        subprocess.run, [*command, "import", "-", "--site", site], input=addresses, capture_output=True, text=True, env=environment
    )  # fmt: skip
    assert (made.returncode, made.stdout, made.stderr) == (
        0, "3,000 read, 3,000 added, 0 known already, 0 refused\n", ""
    )  # fmt: skip
    with subprocess.Popen(
        [*command, "export", "--site", site], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as shown:
        assert shown.stdout is not None
        assert shown.stderr is not None
        first = await asyncio.to_thread(shown.stdout.readline)
        shown.stdout.close()
        said = await asyncio.to_thread(shown.stderr.read)
    assert (first, said, shown.returncode) == (
        b"email,scope,reason,evidence,delivery,created_at\r\n", b"", 0
    )  # fmt: skip


def lane(**fields: Any) -> LaneReport:
    numbers = dict.fromkeys(("queued", "paused", "site_held", "leased", "deferred", "held", "in_doubt"), 0)
    blank: dict[str, Any] = {
        "id": 1, "name": "a.example", "rate_per_s": 1.0, "burst": 1.0, "max_connections": 1, "connections": 0, "owes_s": 0.0,
        "spent": False, "suspended": False, "suspended_until": None, "suspended_why": "", "next_due_at": None,
    }  # fmt: skip
    return LaneReport(**blank | numbers | fields)


@pytest.mark.parametrize(
    ("fields", "fleet", "code"),
    [
        ({"suspended": True, "queued": 3}, Fleet(0, None), Code.LANE_SUSPENDED),
        ({"queued": 3}, Fleet(1, "restored"), Code.HELD_FLEET),
        ({"queued": 3}, Fleet(0, None), Code.NO_DISPATCHER),
        ({"queued": 3, "spent": True}, Fleet(1, None), Code.LANE_RATE),
        ({"queued": 3, "paused": 2}, Fleet(1, None), Code.NEXT),
        ({"queued": 3, "paused": 3}, Fleet(0, None), Code.BROADCAST_PAUSED),
        ({"queued": 3, "paused": 3, "site_held": 1}, Fleet(1, None), Code.HELD_SITE),
        ({"leased": 1, "deferred": 4}, Fleet(1, None), Code.SENDING),
        ({"deferred": 4, "held": 1}, Fleet(1, None), Code.DEFERRED),
        ({"in_doubt": 4}, Fleet(1, None), Code.IN_DOUBT),
        ({"held": 1}, Fleet(1, None), Code.HELD),
        ({}, Fleet(1, None), None),
    ],
)
def test_a_lane_names_what_holds_most_of_it(fields: dict[str, Any], fleet: Fleet, code: Code | None) -> None:
    assert reason(lane(**fields), fleet)[0] == code


def _without(command: tuple[str, ...], option: str) -> tuple[str, ...]:
    """A command line without an option and its value."""
    if option not in command:
        return command
    at = command.index(option)
    return command[:at] + command[at + 2 :]
