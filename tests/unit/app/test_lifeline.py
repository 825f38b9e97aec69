"""What the supervisor says comes in lines, however the pipe cuts them, and its end is the child's end."""

import os
import subprocess
import sys

from gateway.app.lifeline import Pipe

# A child that fails at each line, and at its last chance too.
CHILD = """
import threading
from gateway.app import lifeline

def fail(*line):
    print("told", *line, flush=True)
    raise ValueError

lifeline.ORPHAN_GRACE_S = 0.0
lifeline.hold(lifeline.Pipe(0), fail, fail, exit_code=75)
threading.Event().wait(20)
"""


def test_lines_come_whole_and_the_end_is_told() -> None:
    reading, writing = os.pipe()
    pipe = Pipe(reading)
    try:
        os.write(writing, b"one\ntwo\nthr")
        assert (pipe.line(), pipe.line()) == (b"one\n", b"two\n")
        os.write(writing, b"ee\nrest")
        assert pipe.line() == b"three\n"
        os.close(writing)
        assert (pipe.line(), pipe.line()) == (b"rest", b"")
    finally:
        os.close(reading)


def test_a_line_that_nobody_can_take_does_not_hide_the_end() -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD], input=b"one\ntwo\n", capture_output=True, timeout=60
    )
    assert child.returncode == 75, child.stderr
    said = [line for line in child.stdout.splitlines() if line.startswith(b"told")]
    assert said == [b"told b'one\\n'", b"told b'two\\n'", b"told"]
