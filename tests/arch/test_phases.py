"""Every new migration says whether older code may work beside it: nobody finds that out in an upgrade."""

from __future__ import annotations

from gateway.store.migrate import read_migrations
from gateway.store.phases import Phase

_FIRST_THAT_SAYS = 20
# Those that change what is there in a way that no older code survives, each with its reason.
_NEEDS_EVERY_NODE_ENDED: dict[str, str] = {}


def test_every_migration_says_its_phase() -> None:
    silent = [
        migration.name
        for migration in read_migrations()
        if migration.number >= _FIRST_THAT_SAYS
        and migration.phase is Phase.CHANGE
        and migration.name not in _NEEDS_EVERY_NODE_ENDED
    ]
    assert not silent, (
        f"no line `-- phase: expand` or `-- phase: contract from …` in {', '.join(silent)}: see CONTRIBUTING.md"
    )
