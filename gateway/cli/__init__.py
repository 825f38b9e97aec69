"""The command line, `gateway …`: argument parsing and words; the work is done by `gateway.app` and `gateway.store`.

Every command has `--json` where a program may read it, says errors in one line on stderr, and ends with a code of
`gateway.app.exits`. One module for each group of commands; `main` puts them together.
"""

from gateway.cli.main import main

__all__ = ["main"]
