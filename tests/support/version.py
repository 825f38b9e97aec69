"""The gateway as its next version: a copy of the package with further migrations, to be run beside the present one."""

from __future__ import annotations

import shutil
from pathlib import Path

from gateway.store.migrate import MIGRATIONS_DIR, read_migrations

_ROOT = Path(__file__).resolve().parents[2]
NEWEST = len(read_migrations())
"""The present version's newest migration."""


def make_next_version(folder: Path, *migrations: str) -> Path:
    """Copy the gateway below `folder`, with `migrations` after its own; run it from the path that is returned."""
    version = folder / "next"
    shutil.copytree(_ROOT / "gateway", version / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    for number, sql in enumerate(migrations, start=NEWEST + 1):
        home = version / MIGRATIONS_DIR.relative_to(_ROOT)
        (home / f"{number:04}_next.sql").write_text(sql + "\n", encoding="utf-8")
    return version
