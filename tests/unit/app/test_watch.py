"""A changed file is taken whole or not at all, and one line says what became of it."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.app.brief import Tuning
from gateway.app.watch import Files, Watch
from gateway.config import Config
from gateway.config.load import load, read_document
from gateway.mta.bounce_rules import BounceRules, load_bounces
from gateway.throttle.shaping import load_throttles

RULE = "[[rule]]\npattern = '{}'\nclass = '{}'\nwhy = 'a test'\n"
Logs = list[MutableMapping[str, Any]]


class Folder:
    """Three files and the watch over them."""

    def __init__(self, folder: Path, logs: Logs) -> None:
        self.config, self.throttles, self.bounces = (
            folder / name for name in ("gateway.toml", "throttles.toml", "bounces.toml")
        )
        self.logs = logs
        self.config.write_text("[api]\nport = 9000\n")
        self.throttles.write_text("[default]\nrate_per_s = 100.0\n")
        self.bounces.write_text(RULE.format("go away", "spam"))
        self.begin()

    def begin(self) -> None:
        config = load(self.config, {})
        started = Tuning(config, load_throttles(self.throttles), BounceRules())
        if self.bounces.exists():
            started = Tuning(config, started.shaping, load_bounces(self.bounces))
        self.watch = Watch(
            Files(self.config, self.throttles, self.bounces), started, lambda text: read_document(text, {})
        )
        self.look()
        self.logs.clear()

    def look(self, *, asked: bool = False) -> Logs:
        """Twice, as a text has to be read twice alike; what was logged."""
        self.logs.clear()
        for _ in range(2):
            self.watch.look(asked=asked)
        return list(self.logs)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with capture_logs() as logs:
        yield Folder(tmp_path, logs)


def test_nothing_is_said_of_files_that_stay_as_they_are(folder: Folder) -> None:
    assert folder.look() == []


def test_a_change_is_taken_and_told_key_by_key(folder: Folder) -> None:
    folder.throttles.write_text('[default]\nrate_per_s = 50\n[domain."a.example"]\nburst = 3\n')
    [line] = folder.look()
    assert (line["event"], line["path"]) == ("config.loaded", str(folder.throttles))
    assert line["changes"] == ["default.rate_per_s: 100 → 50", "domain.a.example.burst: (not set) → 3"]
    assert folder.watch.now.shaping.for_domain("a.example").burst == 3


def test_a_text_counts_once_it_was_read_twice(folder: Folder) -> None:
    folder.throttles.write_text("")  # an editor that begins to write
    folder.watch.look()
    folder.throttles.write_text("[default]\nrate_per_s = 5\n")
    folder.watch.look()
    assert folder.watch.now.shaping.default.rate_per_s == 100.0
    folder.watch.look()
    assert folder.watch.now.shaping.default.rate_per_s == 5.0
    assert len(folder.logs) == 1


def test_a_wrong_file_is_refused_once_whole_and_loudly(folder: Folder) -> None:
    folder.throttles.write_text("[default]\nrate_per_s = 5\nburts = 1\nmax_connections = 0\n")
    [line] = folder.look()
    assert (line["event"], line["log_level"]) == ("config.refused", "error")
    where = f'{folder.throttles}:3: default.burts: unknown key; did you mean "burst"?'
    assert line["problem"] == f"{where} (and 1 more: gateway check-config lists them)"
    assert "nothing of this file was taken" in line["in_force"]
    assert folder.watch.now.shaping.default.rate_per_s == 100.0
    assert folder.look() == []


def test_a_mended_file_is_taken_and_said_to_be_right_even_if_nothing_changed(folder: Folder) -> None:
    right = folder.throttles.read_text()
    folder.throttles.write_text("[default\n")
    assert [line["event"] for line in folder.look()] == ["config.refused"]
    folder.throttles.write_text(right)
    [line] = folder.look()
    assert (line["event"], line["changes"]) == ("config.loaded", [])
    folder.throttles.write_text("[default\n")
    folder.look()
    folder.throttles.write_text("[default]\nrate_per_s = 5\n")
    [line] = folder.look()
    assert line["changes"] == ["default.rate_per_s: 100 → 5"]


def test_a_file_that_goes_away_is_refused_and_taken_when_it_is_back(folder: Folder) -> None:
    text = folder.throttles.read_text()
    folder.throttles.unlink()
    [line] = folder.look()
    assert line["event"] == "config.refused"
    assert "cannot be read: No such file" in line["problem"]
    assert folder.watch.now.shaping.default.rate_per_s == 100.0
    folder.throttles.write_text(text)
    [line] = folder.look()
    assert line["event"] == "config.loaded"


def test_a_file_that_was_not_there_is_taken_when_it_comes(folder: Folder) -> None:
    folder.bounces.unlink()
    folder.begin()
    assert folder.look() == []
    folder.bounces.write_text(RULE.format("blocked", "policy"))
    [line] = folder.look()
    assert line["changes"] == ["rule 1: 'blocked' is policy"]


def test_a_path_that_cannot_be_looked_at_is_told_and_ends_nothing(folder: Folder, tmp_path: Path) -> None:
    folder.bounces.unlink()
    folder.begin()
    assert folder.look() == []
    folder.bounces.symlink_to("x" * 300)  # no name that a file may have
    [line] = folder.look()
    assert line["event"] == "config.refused"
    assert "cannot be read: File name too long" in line["problem"]
    folder.bounces.unlink()
    folder.bounces.write_text(RULE.format("blocked", "policy"))
    [line] = folder.look()
    assert line["changes"] == ["rule 1: 'blocked' is policy"]
    watch = Watch(Files(bounces=tmp_path / ("x" * 300)), folder.watch.now)
    folder.logs.clear()
    watch.look()
    watch.look()
    assert [line["event"] for line in folder.logs] == ["config.refused"]


@pytest.mark.parametrize("left", ["", "# what was here is gone\n", "[default]\n"])
def test_a_file_that_lost_all_its_keys_is_refused_and_what_was_before_holds(
    folder: Folder, left: str
) -> None:
    before = folder.throttles.read_text()
    folder.throttles.write_text(left)
    [line] = folder.look()
    assert line["event"] == "config.refused"
    assert "no key is left in it" in line["problem"]
    assert folder.watch.now.shaping.default.rate_per_s == 100.0
    folder.watch.forget()
    assert [one["event"] for one in folder.look(asked=True)].count("config.refused") == 1
    folder.throttles.write_text(before)
    assert [one["event"] for one in folder.look()] == ["config.loaded"]


def test_the_last_rule_goes_when_that_is_said(folder: Folder) -> None:
    folder.bounces.write_text("rule = []\n")
    [line] = folder.look()
    assert line["changes"] == ["no more: 'go away' is spam"]


def test_a_file_that_never_had_a_key_may_stay_so(folder: Folder) -> None:
    folder.bounces.write_text("rule = []\n")
    folder.begin()
    folder.bounces.write_text("# nothing yet\n")
    folder.begin()
    folder.bounces.write_text("# still nothing\n")
    assert folder.look() == []


def test_rules_for_replies_that_come_go_and_move_are_told(folder: Folder) -> None:
    first, second = RULE.format("go away", "spam"), RULE.format("blocked", "policy")
    folder.bounces.write_text(second + first)
    assert folder.look()[0]["changes"] == ["rule 1: 'blocked' is policy"]
    folder.bounces.write_text(first + second)
    assert folder.look()[0]["changes"] == ["the order of the rules"]
    folder.bounces.write_text(second.replace("policy", "auth"))
    assert folder.look()[0]["changes"] == [
        "no more: 'go away' is spam",
        "no more: 'blocked' is policy",
        "rule 1: 'blocked' is auth",
    ]


def test_live_keys_are_taken_and_the_others_wait_for_a_restart(folder: Folder) -> None:
    folder.config.write_text('[api]\nport = 9001\n[dispatch]\nworkers = 3\ntls = "require"\n')
    taken, waits = folder.look()
    assert (taken["event"], taken["changes"]) == ("config.loaded", ["dispatch.tls: opportunistic → require"])
    assert (waits["event"], waits["log_level"]) == ("config.needs_restart", "warning")
    assert waits["changes"] == ["api.port: 9000 → 9001", "dispatch.workers: 1 → 3"]
    now = folder.watch.now.config
    assert (now.api.port, now.dispatch.workers, now.dispatch.tls) == (9000, 1, "require")
    folder.config.write_text("[api]\nport = 9000\n")
    said = folder.look()
    assert [line["changes"] for line in said] == [
        ["dispatch.tls: require → opportunistic"],
        ["nothing waits for a restart any more"],
    ]
    assert folder.watch.now.config == Config(api=now.api)


def test_whoever_asks_is_told_of_each_file_again(folder: Folder) -> None:
    folder.throttles.write_text("[defautl]\n")
    folder.look()
    folder.watch.forget()
    said = folder.look(asked=True)
    assert [(line["event"], Path(line["path"]).name) for line in said] == [
        ("config.loaded", "gateway.toml"),
        ("config.refused", "throttles.toml"),
        ("config.loaded", "bounces.toml"),
    ]
    assert [line.get("changes") for line in said] == [[], None, []]
