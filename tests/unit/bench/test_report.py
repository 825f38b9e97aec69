from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench import report
from bench.report import Code, Machine, Result, figure, quantile, ratios

MACHINE = Machine("cpu", 2, 1, "Linux 6.1", "3.11.0", 0.1, 0.2)


def _result(fingerprint: str, *, quick: bool = False, moved: bool = False) -> Result:
    return Result(
        bench="run", command="python -m bench run", quick=quick, runs=3, started_at=report.now(), took_s=1.0,
        code=Code("abc", fingerprint, (), moved), machine=MACHINE, settings={"messages": 10},
        figures={"messages sent": figure([1.0, 2.0, 3.0], "messages/s")},
    )  # fmt: skip


def _tree(root: Path) -> Path:
    for folder in ("gateway", "bench/results", "config"):
        (root / folder).mkdir(parents=True)
    (root / "gateway" / "a.py").write_text("x = 1\n")
    (root / "config" / "gateway.toml").write_text("[api]\n")
    return root


def test_a_figure_has_its_median_and_its_spread() -> None:
    one = figure([3.0, 1.0, 2.0, 10.0], "ms")
    assert (one.median, one.min, one.max, one.values) == (2.5, 1.0, 10.0, (3.0, 1.0, 2.0, 10.0))
    assert one.reach is None


@pytest.mark.parametrize(
    ("values", "reach", "met"),
    [
        ([1.0, 1.2, 5.0], {"at_most": 1.3}, True),
        ([1.0, 1.2, 5.0], {"at_most": 1.3, "judged": "worst"}, False),
        ([0.9, 0.97, 0.98], {"at_least": 0.95}, True),
        ([0.9, 0.97, 0.98], {"at_least": 0.95, "judged": "worst"}, False),
    ],
)
def test_a_reach_is_judged_by_the_median_or_by_the_worst_run(
    values: list[float], reach: dict[str, float], met: bool
) -> None:
    one = figure(values, "times", **reach)
    assert one.reach is not None
    assert one.reach.met is met


def test_no_runs_are_no_figure() -> None:
    with pytest.raises(ValueError, match="no runs"):
        figure([], "ms")


def test_ratios_compare_run_by_run() -> None:
    assert ratios([2.0, 6.0], [1.0, 2.0]) == [2.0, 3.0]


@pytest.mark.parametrize(
    ("path", "text", "changes"),
    [
        ("gateway/a.py", "x = 2\n", True),
        ("gateway/b.py", "", True),
        ("bench/load.py", "", True),
        ("config/gateway.toml", "[api]\nport = 1\n", True),
        ("bench/README.md", "words", False),
        ("bench/results/run.json", "{}", False),
        ("docs/x.py", "", False),
    ],
)
def test_the_fingerprint_follows_what_can_change_a_figure(
    tmp_path: Path, path: str, text: str, changes: bool
) -> None:
    root = _tree(tmp_path)
    before = report.fingerprint(root)
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)
    assert (report.fingerprint(root) != before) is changes


def test_a_file_that_moved_is_other_code(tmp_path: Path) -> None:
    root = _tree(tmp_path)
    before = report.fingerprint(root)
    (root / "gateway" / "a.py").rename(root / "gateway" / "b.py")
    assert report.fingerprint(root) != before


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (_result("now"), ""),
        (_result("then"), "other code"),
        (_result("now", moved=True), "changed while"),
        (_result("now", quick=True), "quick run"),
        (msgspec.structs.replace(_result("now"), schema=0), "schema 0"),
    ],
)
def test_a_result_is_current_only_for_the_code_that_was_measured(result: Result, why: str) -> None:
    told = report.why_stale(result, "now")
    assert (why in told) if why else told == ""


def test_check_names_every_file(tmp_path: Path) -> None:
    root = _tree(tmp_path)
    folder = root / "bench" / "results"
    report.save(_result(report.fingerprint(root)), folder)
    (folder / "broken.json").write_text("{}")
    assert [(name, bool(why)) for name, why in report.check(folder, root)] == [
        ("broken", True),
        ("run", False),
    ]
    (root / "gateway" / "a.py").write_text("x = 3\n")
    assert all(why for _, why in report.check(folder, root))


def test_a_result_file_reads_back_as_it_was(tmp_path: Path) -> None:
    result = _result("now")
    assert report.read(report.save(result, tmp_path)) == result


def test_the_code_at_hand_has_a_commit_and_a_fingerprint() -> None:
    code = report.read_code()
    assert code.fingerprint == report.fingerprint()
    assert code.commit


def test_the_table_says_what_was_missed() -> None:
    result = msgspec.structs.replace(
        _result("now"),
        figures={"a": figure([2.0], "times", at_most=1.3), "b": figure([1.0], "times", at_most=1.3)},
    )
    first, second = report.table(result).splitlines()[1:]
    assert "MISSED" in first
    assert "met" in second


def test_quantiles_are_values_that_were_seen() -> None:
    values = [float(i) for i in range(1, 101)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile([3.0], 0.99)) == (50.0, 99.0, 3.0)
