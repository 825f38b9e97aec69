"""The commands on a real database: what they print, what programs read, and what they exit with."""

from __future__ import annotations

import json
from pathlib import Path

import asyncpg
import pytest

from gateway.app.exits import Exit
from gateway.model.ids import Prefix, encode
from gateway.store.fleet import hold_fleet
from tests.support.cli import Cli, cli_on
from tests.support.dns import scripted_dns


@pytest.fixture
def cli(db: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    return cli_on(db, capsys, monkeypatch, tmp_path)


@pytest.mark.parametrize(
    "command", ["run", "migrate", "books", "reconcile", "check-config", "openapi", "keys create", "keys list", "keys revoke",
                "sites create", "sites list", "trace", "explain", "config show", "domains add", "domains list", "domains records", "domains verify",
                "send", "broadcast list", "broadcast status", "broadcast pause", "broadcast resume", "broadcast cancel", "lanes list",
                "lanes suspend", "lanes resume", "suppressions list", "suppressions add", "suppressions remove", "suppressions import",
                "suppressions export"],
)  # fmt: skip
async def test_every_command_shows_an_example(cli: Cli, command: str) -> None:
    code, out, _ = await cli(*command.split(), "--help")
    assert code == Exit.OK
    assert f"gateway {command}" in out.split("Example:")[1]


@pytest.mark.parametrize(
    "arguments", [("boks",), ("books", "--depp"), ("run", "--roles", "apo"), ("keys", "create"), ("books", "--broadcast", "x"),
                  ("reconcile", "--in-doubt", "--resend"), ("keys", "create", "--operator", "--scopes", "reed"),
                  ("trace",), ("trace", "--lane", "a.test", "--message", "1"), ("trace", "--lane", "a.test", "--seconds", "3601"),
                  ("trace", "--lane", "no domain"), ("trace", "--message", "dlv_0000000000001"), ("explain",), ("explain", "dlv_0000000000001"),
                  ("explain", "1", "--after", "msg_0000000000001")],
)  # fmt: skip
async def test_a_wrong_command_line_exits_with_2(cli: Cli, arguments: tuple[str, ...]) -> None:
    code, _, err = await cli(*arguments)
    assert code == Exit.USAGE
    assert err
    assert "Traceback" not in err


async def test_migrate_says_that_there_is_nothing_to_do(cli: Cli) -> None:
    assert await cli.json("migrate") == {"applied": []}


async def test_books_that_balance(cli: Cli, pool: asyncpg.Pool) -> None:
    await accept(pool, 5)
    code, out, _ = await cli("books", "--deep")
    assert code == Exit.OK
    assert "the books balance: 5 accepted, each in one state and proven id by id" in out
    document = await cli.json("books", "--broadcast", "brd_0000000000007")
    assert document["broadcasts"][0]["states"] == {"queued": 5}


@pytest.mark.parametrize(
    ("damage", "options", "says"),
    [
        ("DELETE FROM queue WHERE id % 1024 = 2", (), "5, but its states add up to 4: 1 missing"),
        (
            "DELETE FROM queue WHERE id % 1024 = 2",
            ("--deep",),
            "1 lost (accepted, but neither in the queue nor ended)",
        ),
        ("UPDATE acceptance SET deliveries = 4", ("--deep",), "1 unknown"),
        (
            "INSERT INTO ended SELECT id, site_id, message_id, broadcast_id, 1, 1, 'delivered', 1, 0, 250, null, null, null, "
            "accepted_at, now(), recipient FROM queue WHERE id % 1024 = 2",
            ("--deep",),
            "1 double",
        ),
        ("INSERT INTO tally VALUES (1, 7, 'delivered', 0, 3)", (), "3 too many"),
        (
            "INSERT INTO tally VALUES (1, 7, 'delivered', 0, 3)",
            ("--deep",),
            "3 tallied as delivered, but 0 records",
        ),
    ],
)
async def test_books_that_do_not_balance(
    cli: Cli, pool: asyncpg.Pool, damage: str, options: tuple[str, ...], says: str
) -> None:
    await accept(pool, 5)
    await pool.execute(damage)
    code, out, _ = await cli("books", *options)
    assert code == Exit.FAILED
    assert "THE BOOKS DO NOT BALANCE" in out
    assert says in out
    code, out, _ = await cli("books", *options, "--json")
    assert code == Exit.FAILED
    assert json.loads(out)["balanced"] is False


async def test_sites_and_keys(cli: Cli, pool: asyncpg.Pool) -> None:
    site = await cli.json("sites", "create", "Velaro", "--time-zone", "Europe/Vienna")
    assert [found["name"] for found in await cli.json("sites", "list")] == ["Velaro"]
    key = await cli.json("keys", "create", "--site", site["id"], "--scopes", "send,read", "--name", "app")
    assert (key["site"], key["scopes"]) == (site["id"], ["send", "read"])
    assert key["key"].startswith(f"gw_{key['prefix']}_")
    listed = await cli("keys", "list", "--site", site["id"])
    assert key["key"] not in listed[1]
    assert key["id"] in listed[1]
    await cli.json("keys", "revoke", key["id"])
    assert await pool.fetchval("SELECT revoked_at FROM api_key") is not None
    code, out, _ = await cli("keys", "create", "--operator")
    assert (code, out.startswith("gw_")) == (Exit.OK, True)
    assert [found["site"] for found in await cli.json("keys", "list", "--operator")] == [None]
    assert await pool.fetchval("SELECT count(*) FROM api_key WHERE site_id IS NULL") == 1


async def test_a_key_for_a_site_that_is_not_there(cli: Cli) -> None:
    code, _, err = await cli("keys", "create", "--site", "99")
    assert (code, err) == (Exit.FAILED, "gateway: no such site\n")


async def test_without_any_database_it_says_how_to_get_one(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_DSN", "")
    code, _, err = await cli("books")
    assert code == Exit.FAILED
    assert (
        "start `gateway run` and wait until it says that it is ready, or name a Postgres with GATEWAY_DSN"
        in err
    )


async def test_a_database_that_does_not_answer_is_temporary(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_DSN", "postgresql://someone:hidden@127.0.0.1:1/gateway")
    code, _, err = await cli("books")
    assert code == Exit.TEMPORARY
    assert "hidden" not in err


async def test_an_unforeseen_error_is_one_line_and_a_file(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("gateway.cli.books.read_books", broken)
    code, _, err = await cli("books")
    assert (code, err.count("\n")) == (Exit.BUG, 1)
    trace = Path(err.split("the trace is in ")[1].split(":")[0])
    assert "ZeroDivisionError: oops" in trace.read_text()
    trace.unlink()


async def test_check_config_names_file_line_and_key_of_every_mistake(cli: Cli, tmp_path: Path) -> None:
    assert (await cli.json("check-config"))["files"] == ["(built-in defaults)"]
    (tmp_path / "config").mkdir()
    (tmp_path / "config/gateway.toml").write_text('[api]\nprt = 1\n[mail]\nsender_id = "?"\n')
    (tmp_path / "config/throttles.toml").write_text("[default]\nburst = 0\n")
    (tmp_path / "config/bounces.toml").write_text("[[rule]]\n[[rule\n")
    code, out, err = await cli("check-config")
    assert (code, out) == (Exit.CONFIG, "")
    lines = err.splitlines()
    assert lines[0] == 'gateway: config/gateway.toml:2: api.prt: unknown key; did you mean "port"?'
    assert lines[1].startswith("gateway: config/gateway.toml:4: mail.sender_id: expected str matching")
    assert lines[2] == "gateway: config/throttles.toml:2: default.burst: expected int >= 1"
    assert lines[3].startswith("gateway: config/bounces.toml:2: not TOML")
    code, out, err = await cli("check-config", "--json")
    document = json.loads(out)
    assert (code, err, document["ok"], len(document["errors"])) == (Exit.CONFIG, "", False, 4)
    assert document["errors"][0] == {
        "file": "config/gateway.toml", "line": 2, "key": "api.prt", "problem": "unknown key", "hint": 'did you mean "port"?',
    }  # fmt: skip
    code, _, err = await cli("run")
    assert code == Exit.CONFIG
    assert 'api.prt: unknown key; did you mean "port"? (and 1 more: gateway check-config lists them)' in err


async def test_check_config_opens_the_key_files_and_makes_none(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text(
        '[mail]\nplatform_domain = "p.example"\nplatform_key_file = "none.pem"\n'
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "data/master.key").write_text("no base64!")
    (tmp_path / "data/master.key").chmod(0o600)
    code, _, err = await cli("check-config", "--config", "g.toml")
    assert code == Exit.CONFIG
    assert "mail.platform_key_file: none.pem: No such file" in err
    assert "data/master.key: keys.master_key_file: no base64" in err
    (tmp_path / "data/master.key").unlink()
    (tmp_path / "g.toml").write_text("")
    assert (await cli.json("check-config", "--config", "g.toml"))["ok"]
    assert not (tmp_path / "data/master.key").exists()


async def test_config_show_names_the_source_of_every_value_and_no_secret(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_DSN", "postgresql://u:hush@h/d")
    monkeypatch.setenv("GATEWAY__API__PORT", "9001")
    (tmp_path / "g.toml").write_text("[dispatch]\ntls = 'require'\n")
    (tmp_path / "throttles.toml").write_text('[domain."a.test"]\nburst = 3\n')
    document = await cli.json("config", "show", "--config", "g.toml")
    by_key = {value["key"]: value for value in document["values"]}
    assert by_key["dispatch.tls"] == {
        "key": "dispatch.tls",
        "value": "require",
        "source": "g.toml:2",
        "live": True,
    }
    assert by_key["api.port"]["source"] == "environment GATEWAY__API__PORT"
    assert by_key["database.dsn"]["value"] == "postgresql://u:…@h/d"
    assert by_key["api.host"] == {"key": "api.host", "value": "127.0.0.1", "source": "default", "live": False}
    assert document["throttles"] == {"file": "throttles.toml", "rules": 1}
    assert document["bounces"] == {"file": None, "rules": 0}
    code, out, _ = await cli("config", "show", "--config", "g.toml")
    assert (code, "hush" in out) == (Exit.OK, False)
    assert ["dispatch.tls", "require", "g.toml:2", "live"] in [line.split() for line in out.splitlines()]


async def test_config_show_explains_the_limits_of_a_destination(cli: Cli, tmp_path: Path) -> None:
    async with scripted_dns() as dns:
        dns.put("a.test", "MX", "10 mx.big.example.")
        dns.put("mx.big.example", "A", "8.8.8.1")
        (tmp_path / "g.toml").write_text(
            f'[mx]\nnameservers = ["{dns.nameserver}"]\n[route.domains]\n"b.test" = "h:25"\n'
        )
        (tmp_path / "throttles.toml").write_text(
            '[mx_suffix."big.example"]\nrate_per_s = 20\n\n[domain."a.test"]\nburst = 3\n'
        )
        show = ("config", "show", "--config", "g.toml", "--effective")
        code, out, err = await cli(*show, "A.Test.")
        assert (code, err) == (Exit.OK, "")
        lines = [line.split() for line in out.splitlines()]
        assert ["rate_per_s", "20", "throttles.toml:2", '[mx_suffix."big.example"]'] in lines
        assert ["burst", "3", "throttles.toml:5", '[domain."a.test"]'] in lines
        assert ["max_connections", "10", "default"] in lines
        assert 'from general to specific: [default], [mx_suffix."big.example"], [domain."a.test"]' in out
        assert "goes to: mx.big.example (site name mx.big.example)" in out
        document = await cli.json(*show, "a.test", "--no-look-up")
        assert document["limits"][0]["source"] == "default"
        assert (document["mx_hosts"], document["rules"]) == ([], ["[default]", '[domain."a.test"]'])
        assert (await cli.json(*show, "b.test"))["route"] == "h:25"
        code, out, _ = await cli(*show, "nowhere.test")
        assert (code, "goes to: its MX (" in out) == (Exit.OK, True)
    code, _, err = await cli("config", "show", "--effective", "no domain")
    assert (code, '--effective: "no domain" is no domain' in err) == (Exit.USAGE, True)


async def test_config_show_refuses_what_a_start_would_refuse(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text("")
    (tmp_path / "throttles.toml").write_text("[default]\nburst = 0\n")
    code, _, err = await cli("config", "show", "--config", "g.toml")
    assert (code, "throttles.toml:2: default.burst" in err) == (Exit.CONFIG, True)


async def test_check_config_tries_a_reply_on_the_rules_in_force_or_on_others(
    cli: Cli, tmp_path: Path
) -> None:
    rule = "[[rule]]\npattern = 'go away'\ncodes = [550]\nclass = 'invalid'\nwhy = 'they say so'\n"
    (tmp_path / "new.toml").write_text("# a rule\n" + rule)
    reply = ("check-config", "--reply", "550 5.7.1 Go away")
    document = await cli.json(*reply)
    assert (document["class"], document["rule"], document["suppresses"]) == ("policy", None, False)
    document = await cli.json(*reply, "--bounces", "new.toml")
    assert (document["outcome"], document["class"], document["scope"]) == ("bounced", "invalid", "recipient")
    assert (document["rule"], document["why"], document["suppresses"]) == ("new.toml:2", "they say so", True)
    assert (await cli.json(*reply, "--bounces", "new.toml", "--stage", "mail"))["suppresses"] is False
    (tmp_path / "g.toml").write_text("")
    (tmp_path / "bounces.toml").write_text(rule)
    code, out, _ = await cli(*reply, "--config", "g.toml")
    assert (code, "rule: bounces.toml:1 (they say so)" in out) == (Exit.OK, True)
    assert "suppresses: yes" in out
    (tmp_path / "bounces.toml").write_text(rule.replace("550", "450"))
    for command in ("check-config", "run"):
        code, _, err = await cli(command, "--config", "g.toml")
        assert code == Exit.CONFIG
        assert 'bounces.toml:4: rule.1.class: "invalid" suppresses addresses' in err
    code, _, err = await cli("check-config", "--reply", "go away")
    assert (code, "--reply: reply begins with" in err) == (2, True)


async def test_reconcile_reports_and_changes_nothing_without_an_option(cli: Cli, pool: asyncpg.Pool) -> None:
    assert (await cli.json("reconcile"))["held"] is False
    await accept(pool, 4)
    await pool.execute("UPDATE queue SET state = 'leased', owner_id = 1 WHERE id % 1024 = 0")
    async with pool.acquire() as connection:
        await hold_fleet(connection, "restored: for a test", 7)
    code, out, _ = await cli("reconcile")
    assert code == Exit.OK
    assert "restored: for a test" in out
    assert "--in-doubt" in out
    document = await cli.json("reconcile")
    assert document["rows"] == [
        {"state": "queued", "stream": "marketing", "n": 3, "before": 3},
        {"state": "leased", "stream": "marketing", "n": 1, "before": 1},
    ]
    assert await pool.fetchval("SELECT count(*) FROM hold") == 1


async def test_reconcile_in_doubt_leaves_what_came_later(cli: Cli, pool: asyncpg.Pool) -> None:
    await accept(pool, 4)
    await pool.execute("UPDATE queue SET state = 'leased', owner_id = 1, epoch = 3 WHERE id % 1024 = 0")
    await pool.execute("UPDATE queue SET state = 'deferred' WHERE id % 1024 = 1")
    async with pool.acquire() as connection:
        await hold_fleet(connection, "restored", 7)
    await accept(pool, 2)
    document = await cli.json("reconcile", "--in-doubt")
    assert (document["moved"], document["released"]) == (4, True)
    assert await pool.fetchval("SELECT count(*) FROM hold") == 0
    rows = await pool.fetch(
        "SELECT state::text, epoch, owner_id, doubts, count(*) FROM queue GROUP BY 1, 2, 3, 4 ORDER BY 1, 2"
    )
    assert [tuple(row) for row in rows] == [
        ("in_doubt", 1, None, 1, 3),
        ("in_doubt", 4, None, 1, 1),
        ("queued", 0, None, 0, 2),
    ]
    assert await pool.fetchval("SELECT count(*) FROM event WHERE kind = 'in_doubt'") == 4
    assert (await cli("books", "--deep"))[0] == Exit.OK


async def test_reconcile_resend_lets_go_of_leases(cli: Cli, pool: asyncpg.Pool) -> None:
    await accept(pool, 4)
    await pool.execute("UPDATE queue SET state = 'leased', owner_id = 1, epoch = 3 WHERE id % 1024 < 2")
    async with pool.acquire() as connection:
        await hold_fleet(connection, "restored", 7)
    assert (await cli.json("reconcile", "--resend"))["moved"] == 2
    assert await pool.fetchval("SELECT count(*) FROM queue WHERE state = 'queued'") == 4
    assert await pool.fetchval("SELECT count(*) FROM hold") == 0


async def test_trace_says_what_it_cannot_find(cli: Cli, pool: asyncpg.Pool) -> None:
    await accept(pool, 2)
    delivery = await pool.fetchval("SELECT min(id) FROM queue")
    await pool.execute(
        "WITH gone AS (DELETE FROM queue WHERE id = $1 RETURNING *) INSERT INTO ended SELECT id, site_id, message_id, broadcast_id, 1, 1, "
        "'delivered', 1, 0, 250, null, null, null, (SELECT accepted_at FROM acceptance), now(), recipient FROM gone",
        delivery,
    )
    for arguments, says in (
        (("--lane", "exmaple.org"), "no lane for exmaple.org: nothing was accepted for that domain"),
        (("--message", "msg_0000000001j4z"), "no such message"),
        (("--delivery", "1"), "no such delivery"),
        (("--delivery", str(delivery)), "this delivery has ended (delivered)"),
        (("--delivery", str(delivery + 1)), "no dispatcher has ever shown itself: is `gateway run` up?"),
    ):
        code, out, err = await cli("trace", *arguments)
        assert (code, out) == (Exit.FAILED, "")
        assert says in err
    assert await pool.fetchval("SELECT count(*) FROM trace_request") == 0


async def test_trace_of_a_fleet_that_died_says_so_and_ends_its_request(
    cli: Cli, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    await accept(pool, 1)
    await pool.execute("INSERT INTO incarnation (host_key, pid) VALUES ('gone', 1)")
    (tmp_path / "g.toml").write_text("[dispatch]\nheartbeat_s = 0.05\n")
    delivery = await pool.fetchval("SELECT id FROM queue")
    code, _, err = await cli("trace", "--config", "g.toml", "--delivery", str(delivery))
    assert code == Exit.FAILED
    assert "no dispatcher has shown itself since 20" in err
    assert await pool.fetchval("SELECT count(*) FROM trace_request WHERE until_at > clock_timestamp()") == 0


async def test_explain_says_for_every_delivery_what_holds_it(cli: Cli, pool: asyncpg.Pool) -> None:
    await accept(pool, 3)
    number = await pool.fetchval("SELECT message_id FROM acceptance")
    await pool.execute(
        "INSERT INTO message (id, site_id, domain_id, stream, sender, subject) VALUES ($1, 1, 1, 'marketing', 's', 's')",
        number,
    )
    await pool.execute("UPDATE queue SET state = 'leased' WHERE id % 1024 = 1")
    message = encode(Prefix.MESSAGE, number)
    code, out, _ = await cli("explain", message)
    assert code == Exit.OK
    for word in (
        "a@b.test",
        "no_dispatcher: no dispatcher is running",
        "gateway run --roles dispatch",
        "dispatcher_lost",
    ):
        assert word in out
    document = await cli.json("explain", str(number))
    assert (document["message"], document["has_more"], document["next"]) == (message, False, None)
    assert [one["reasons"][0]["code"] for one in document["data"]] == [
        "no_dispatcher",
        "dispatcher_lost",
        "no_dispatcher",
    ]
    rest = await cli.json("explain", message, "--after", document["data"][0]["id"])
    assert [one["id"] for one in rest["data"]] == [one["id"] for one in document["data"][1:]]
    code, _, err = await cli("explain", "msg_0000000001j4z")
    assert (code, err) == (Exit.FAILED, "gateway: no such message\n")


async def accept(pool: asyncpg.Pool, count: int) -> None:
    """Accept `count` deliveries of broadcast 7 of site 1, all in one acceptance."""
    number = await pool.fetchval("SELECT nextval('acceptance_id')")
    await pool.execute(
        "INSERT INTO acceptance (id, site_id, message_id, broadcast_id, deliveries) VALUES ($1, 1, $1, 7, $2)",
        number,
        count,
    )
    await pool.execute(
        "INSERT INTO queue (id, seq, flow_id, lane_id, site_id, message_id, broadcast_id, priority, due_at, accepted_at, expires_at, "
        "recipient) SELECT $1::bigint * 1024 + i, $1::bigint * 1024 + i, 1, 1, 1, $1::bigint, 7, 1, now(), now(), now() + interval '1 day', 'a@b.test' "
        "FROM generate_series(0, $2::int - 1) i",
        number,
        count,
    )
