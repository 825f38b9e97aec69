from __future__ import annotations

import os
import subprocess
import sys

from bench.cpu import CLOCK_TICK_S, peak_rss_bytes, process_cpu_s, read_usage, tree_cpu_s, tree_usage

STAT = "4711 (postgres: io) x) S 42 4711 4711 0 -1 4194560 1 2 3 4 100 50 30 20 20 0 1 0 12345 600000000 5000"

_BURN = "import time\nwhile time.process_time() < {0}: pass\n"


def test_reads_usage_whatever_the_name_holds() -> None:
    usage = read_usage(STAT)
    assert usage.parent == 42
    assert usage.own_s == 150 * CLOCK_TICK_S
    assert usage.inherited_s == 50 * CLOCK_TICK_S
    assert usage.kernel_s == 70 * CLOCK_TICK_S
    assert usage.program == "postgres: io) x"


def test_a_child_that_ended_still_counts() -> None:
    before = tree_cpu_s(os.getpid())
    subprocess.run([sys.executable, "-S", "-c", _BURN.format(0.1)], check=True)
    assert tree_cpu_s(os.getpid()) - before >= 0.1 - 2 * CLOCK_TICK_S


def test_a_living_grandchild_counts_and_can_be_left_out() -> None:
    script = f"import subprocess,sys\n{_BURN.format(0.1)}print(1, flush=True)\nsys.stdin.read()"
    middle = f"import subprocess,sys\nsubprocess.run([sys.executable, '-S', '-c', {script!r}])"
    before = tree_cpu_s(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-S", "-c", middle], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        used = tree_cpu_s(os.getpid()) - before
        without = tree_cpu_s(os.getpid(), without=(os.getpid(),))
        everything = tree_cpu_s(os.getpid())
        process.stdin.close()
    assert used >= 0.1 - 2 * CLOCK_TICK_S
    assert without < everything


def test_a_tree_says_which_program_used_what() -> None:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", f"{_BURN.format(0.1)}print(1, flush=True)\nimport sys; sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        usage = tree_usage(process.pid)
        process.stdin.close()
    (used_s,) = usage.by_program_s.values()
    assert 0.1 - 2 * CLOCK_TICK_S <= used_s == usage.total_s
    assert 0 <= usage.kernel_s <= usage.total_s


def test_a_process_that_is_gone_used_nothing_more() -> None:
    process = subprocess.run(
        [sys.executable, "-S", "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    assert process_cpu_s(int(process.stdout)) == 0.0


def test_reads_the_peak_of_memory() -> None:
    assert peak_rss_bytes(os.getpid()) > 1_000_000
