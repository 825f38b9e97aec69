"""`gateway`: all commands together, and what becomes of an error.

An error that was foreseen is one line on stderr. One that was not is one line too, and its trace goes to a file of its own,
whose name the line says: no user is shown a traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cyclopts import App, CycloptsError

from gateway import __version__
from gateway.app.exits import Exit, exit_code
from gateway.cli.common import UsageError
from gateway.errors import GatewayError

_COMMANDS: Final = {
    "run": ("gateway.cli.run:run", "Run the gateway until SIGTERM or Ctrl-C."),
    "migrate": ("gateway.cli.migrate:migrate", "Bring the database to the schema of this version."),
    "sites": ("gateway.cli.sites:sites", "Sites (the tenants): create, list."),
    "keys": ("gateway.cli.keys:keys", "API keys: create, list, revoke."),
    "domains": ("gateway.cli.domains:domains", "Sending domains: add, list, records, verify."),
    "send": ("gateway.cli.send:send", "Send one message, without an app."),
    "broadcast": ("gateway.cli.broadcast:broadcast", "Broadcasts: list, status, pause, resume, cancel."),
    "suppressions": (
        "gateway.cli.suppressions:suppressions",
        "Who must not be written to: list, add, remove, import, export.",
    ),
    "lanes": ("gateway.cli.lanes:lanes", "Lanes, one for each destination: list, suspend, resume, limit."),
    "books": ("gateway.cli.books:books", "Show that every accepted delivery is in exactly one state."),
    "reconcile": ("gateway.cli.reconcile:reconcile", "After a restore: decide what becomes of what is open."),
    "explain": (
        "gateway.cli.explain:explain",
        "Say why a message is where it is, and what would release it.",
    ),
    "trace": ("gateway.cli.trace:trace", "Show the SMTP sessions of a lane, a message or a delivery."),
    "config": ("gateway.cli.config:config", "The configuration in force: each value, and where it is from."),
    "check-config": ("gateway.cli.check_config:check_config", "Check the configuration, changing nothing."),
    "openapi": ("gateway.cli.openapi:openapi", "Print the OpenAPI document of the control API."),
}
_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it


def make_app(asked: str = "") -> App:
    """All commands. Only the one that is asked for is imported, so that `--help` comes at once.

    Args:
        asked: a command, which then has its own full help instead of its line in the list.
    """
    app = App(
        name="gateway",
        help="A delivery gateway: control API, Postgres queue, DKIM, SMTP.\n\nExample: gateway run\n\nExample: gateway send --help\n\n"
        "Exit codes: 0 done, 1 failed or the answer is no, 2 wrong command line, 70 a bug, 75 Postgres is away, 78 wrong configuration.",
        version=__version__,
        help_format="plaintext",
        result_action="return_value",
    )
    for name, (where, what) in _COMMANDS.items():
        if name == asked:
            app.command(where, name=name)
        else:
            app.command(where, name=name, help=what)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; the exit status."""
    try:
        words = list(sys.argv[1:] if arguments is None else arguments)
        result = make_app(words[0] if words else "")(words, exit_on_error=False, print_error=True)
    except CycloptsError:
        return Exit.USAGE
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _INTERRUPTED
    except UsageError as error:
        _complain(str(error))
        return Exit.USAGE
    except GatewayError as error:
        _complain(str(error))
        return exit_code(error)
    except BrokenPipeError:  # `gateway … | head`
        sys.stderr.close()
        return Exit.OK
    except Exception as error:
        _complain(f"internal error ({type(error).__name__}: {error}); {_keep_trace()}")
        return exit_code(error)
    return int(result) if isinstance(result, int) else Exit.OK


def _complain(what: str) -> None:
    sys.stderr.write(f"gateway: {' '.join(what.split())}\n")


def _keep_trace() -> str:
    """Put the trace of the present error into a file; what to tell about it."""
    with contextlib.suppress(OSError):
        prefix = f"gateway-error-{datetime.now(UTC):%Y%m%dT%H%M%S}-"
        with tempfile.NamedTemporaryFile("w", prefix=prefix, suffix=".log", delete=False) as file:
            traceback.print_exc(file=file)
        return f"the trace is in {Path(file.name)}: please report it"
    return "its trace could not be written"
