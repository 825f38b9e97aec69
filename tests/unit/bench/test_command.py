from __future__ import annotations

import importlib

import pytest

from bench.__main__ import BENCHES, main
from bench.load.urgent import _arrivals
from bench.micro.claim import contenders


@pytest.mark.parametrize("name", BENCHES)
def test_every_benchmark_is_there(name: str) -> None:
    module, function, _ = BENCHES[name]
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["run", "--runs", "0"],
        ["run", "--runs", "many"],
        ["run", "--only", "x"],
        ["api", "--only", "headline"],
    ],
)
def test_refuses_what_it_does_not_know(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_help_names_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    assert all(name in told for name in [*BENCHES, "all", "check", "plot", "headline"])


def test_every_contender_is_measured_against_one_of_its_own_width() -> None:
    plan = contenders(1_000_000, 100_000)
    by_name = {contender.name: contender for contender in plan}
    assert len(by_name) == len(plan)
    for contender in plan:
        if contender.base:
            base = by_name[contender.base]
            assert (base.lanes, base.backlog, base.stats) == (contender.lanes, 0, "fresh")


def test_arrivals_are_the_first_accept_of_each_delivery() -> None:
    line = "{}\t{}\t250\t1\t10\ta@b.test\tm\t{}"
    lines = [line.format("accepted", 2.0, 7), line.format("accepted", 3.0, 7), line.format("refused", 1.0, 8)]
    assert _arrivals(lines) == {7: 2.0}
