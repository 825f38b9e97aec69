from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench import latest, report
from bench.load.run import described, figures
from bench.load.scenario import SCENARIOS
from bench.peers import ALONE, SIGNED
from bench.report import Code, Machine, Result, figure
from tests.unit.bench.test_run import a_run

MACHINE = Machine("cpu", 2, 1, "Linux 6.1", "3.11.0", 0.1, 0.2)
SPREAD = {"median", "min", "max"}


def result(bench: str, found: dict[str, report.Figure], fingerprint: str = "now") -> Result:
    return Result(
        bench=bench, command="-", quick=False, runs=2, started_at=report.now(), took_s=1.0,
        code=Code("abc", fingerprint, ()), machine=MACHINE,
        settings={"scenarios": [described(one) for one in SCENARIOS], "failed": {"starttls": "no TLS"}}, figures=found,
    )  # fmt: skip


def of_run(fingerprint: str = "now") -> Result:
    names = [one.name for one in SCENARIOS if one.name != "starttls"]
    runs = {name: [a_run(), a_run(rate=1_500.0)] for name in names}
    return result("run", figures(SCENARIOS, runs, {"starttls": "no TLS"}), fingerprint)


def of_peers(fingerprint: str = "now") -> Result:
    found = {}
    for name in (SIGNED, ALONE):
        found[f"messages per CPU-second, gateway : {name}"] = figure([3.0, 4.0, 5.0], "times")
        found[f"CPU of {name}"] = figure([2.0, 2.5, 3.0], "ms a message")
    return result("peers", found, fingerprint)


def test_the_file_has_the_agreed_form() -> None:
    made = msgspec.json.decode(msgspec.json.encode(latest.from_results(of_run(), of_peers())))
    assert list(made) == ["commit", "machine", "settings", "rsa2048_sign_ms", "runs", "peers"]
    first = made["runs"][0]
    assert list(first) == [
        "name", "size_bytes", "signing", "dispatchers", "messages", "messages_per_s", "cpu_ms_per_message", "ratio_to_rsa",
        "peak_rss_mb",
    ]  # fmt: skip
    assert list(first["cpu_ms_per_message"]) == ["gateway", "postgres", "sink"]
    assert first["messages_per_s"] == {"median": 1_400.0, "min": 1_300.0, "max": 1_500.0}
    assert all(set(first[key]) == SPREAD for key in ("ratio_to_rsa", "peak_rss_mb"))
    assert made["peers"] == [
        {"name": name, "cpu_ms_per_message": 2.5, "ratio": 4.0} for name in (SIGNED, ALONE)
    ]


def test_what_failed_is_left_out() -> None:
    made = latest.from_results(of_run(), None)
    assert [one.name for one in made.runs] == [one.name for one in SCENARIOS if one.name != "starttls"]
    assert made.settings["failed"] == {"starttls": "no TLS"}
    assert made.peers == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("gateway", "bench/results", "config"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "gateway" / "a.py").write_text("x = 1\n")
    return tmp_path


def test_it_is_current_as_long_as_its_sources_are(root: Path) -> None:
    folder, now = root / "bench" / "results", report.fingerprint(root)
    assert latest.check(folder, root) == []
    report.save(of_run(now), folder)
    written = latest.write(folder)
    assert [path.name for path in written] == ["latest.json", "latest.svg"]
    assert latest.check(folder, root) == [("latest", "")]
    assert report.check(folder, root) == [("run", "")]  # it is no result file, and not called a broken one
    (root / "gateway" / "a.py").write_text("x = 2\n")
    assert "run.json is: measured with other code" in latest.check(folder, root)[0][1]


def test_it_is_stale_when_its_sources_say_something_else(root: Path) -> None:
    folder, now = root / "bench" / "results", report.fingerprint(root)
    report.save(of_run(now), folder)
    latest.write(folder)
    report.save(of_peers(now), folder)
    assert "does not say" in latest.check(folder, root)[0][1]
    latest.write(folder)
    assert latest.check(folder, root) == [("latest", "")]
    report.save(of_peers("then"), folder)
    assert "peers.json is" in latest.check(folder, root)[0][1]
    (folder / "run.json").write_text("{}")
    assert "not a result file" in latest.check(folder, root)[0][1]
    (folder / "run.json").unlink()
    assert "no run.json" in latest.check(folder, root)[0][1]


def test_there_is_nothing_to_write_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(latest.CannotMake, match=r"no run\.json"):
        latest.write(tmp_path)
    before_there_were_scenarios = msgspec.structs.replace(of_run(), settings={"messages": 10_000})
    report.save(before_there_were_scenarios, tmp_path)
    with pytest.raises(latest.CannotMake, match="no scenarios"):
        latest.write(tmp_path)
