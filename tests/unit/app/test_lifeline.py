"""What the supervisor says comes in lines, however the pipe cuts them."""

import os

from gateway.app.lifeline import Pipe


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
