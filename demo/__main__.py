"""`python -m demo`: the command line, the folder, and the end of everything."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from demo.client import ApiRefused
from demo.processes import ProgramError
from demo.screen import Screen
from demo.story import Wishes, tell
from demo.watch import Stuck
from gateway.errors import GatewayError

_INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run the demo; 0 only when every message is accounted for by sender and receiver alike."""
    args = _arguments().parse_args(argv)
    signal.signal(signal.SIGTERM, _end)  # as Ctrl-C: what was started is ended on the way out
    folder = Path(tempfile.mkdtemp(prefix="gateway-demo-"))
    screen = Screen()
    good = False
    try:
        wishes = Wishes(messages=args.messages, domains=args.domains, workers=args.workers, hide=args.hide)
        good = tell(wishes, folder, screen)
        return 0 if good else 1
    except KeyboardInterrupt:
        screen.verdict(False, ["interrupted"])
        return _INTERRUPTED
    except (ApiRefused, ProgramError, Stuck, GatewayError) as error:
        screen.verdict(False, [str(error)])
        args.keep = True  # for whoever wants to know why
        return 1
    finally:
        screen.close()
        if args.keep:
            screen.step(f"everything is kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _end(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="Send a broadcast through the whole gateway on this machine, and hold its books against the receiver's.",
        epilog="example: python -m demo --messages 2000 --workers 2 --keep",
    )
    parser.add_argument(
        "--messages", type=int, default=10_000, help="contacts to write to (default: %(default)s)"
    )
    parser.add_argument("--domains", type=int, default=300, help="recipient domains (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="dispatcher processes (default: %(default)s)")
    parser.add_argument(
        "--hide",
        action="store_true",
        help="let the receiver hide one message from its ledger: must be noticed, exit 1",
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder: database, ledger, logs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
