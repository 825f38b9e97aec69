"""Reading a folder of migrations and comparing it with a database's record; no database needed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.store.migrate import Applied, Migration, MigrationError, check, read_migrations
from gateway.store.phases import Phase


def _migration(number: int, sha256: str = "a") -> Migration:
    return Migration(number, f"{number:04}_step", "SELECT 1", sha256, Phase.CHANGE, number)


def _applied(number: int, sha256: str = "a") -> Applied:
    return Applied(number, f"{number:04}_step", sha256, datetime(2026, 11, 1, tzinfo=UTC), number)


@pytest.mark.parametrize(
    ("applied", "files", "problem"),
    [
        ([], [], ""),
        ([], [1, 2], ""),
        ([1], [1, 2], ""),
        ([1, 2], [1, 2], ""),
        ([1, 2, 3], [1, 2], "newer than this code: it has 0003_step, the code ends at 0002"),
        ([1], [], "newer than this code"),
        ([1, 3], [1, 2, 3], "the record has a gap"),
        ([2], [1, 2], "the record has a gap"),
    ],
)
def test_a_record_is_compared_with_the_files(applied: list[int], files: list[int], problem: str) -> None:
    found = check([_applied(number) for number in applied], [_migration(number) for number in files])
    assert problem in found
    assert bool(problem) == bool(found)


def test_a_changed_file_is_named_with_the_day_it_was_applied() -> None:
    found = check([_applied(1, "a"), _applied(2, "a")], [_migration(1, "a"), _migration(2, "b")])
    assert found.startswith("0002_step has changed since it was applied on 2026-11-01 00:00 UTC")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1_first.sql"], "the name of a migration is NNNN_name.sql"),
        (["0001_First.sql"], "the name of a migration is NNNN_name.sql"),
        (["0002_second.sql"], "number 0001 was expected"),
        (["0001_a.sql", "0003_c.sql"], "number 0002 was expected"),
        (["0001_a.sql", "0001_b.sql"], "number 0002 was expected"),
    ],
)
def test_a_malformed_folder_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(MigrationError, match=message):
        read_migrations(tmp_path)


def test_the_gateways_own_folder_is_well_formed() -> None:
    assert [migration.number for migration in read_migrations()] == list(range(1, len(read_migrations()) + 1))
