"""The demo's file holds what it says: so many good rows over so many domains, and bad ones of every kind."""

from __future__ import annotations

import io

from bench.load.world import BEHAVIOURS
from demo.contacts import BAD_ROWS, addresses, make_csv
from gateway.campaigns.csv_rows import ContactRow, read_rows


def test_the_import_takes_all_but_the_bad_rows_and_refuses_each_for_its_own_reason() -> None:
    rows = list(read_rows(io.StringIO(make_csv(1_000, 30).decode())))
    good = [row for row in rows if isinstance(row, ContactRow)]
    bad = [row for row in rows if not isinstance(row, ContactRow)]
    assert len({row.email for row in good}) == 1_000
    assert len({row.domain for row in good}) == 30
    assert len(bad) == len(BAD_ROWS)
    assert len({row.reason for row in bad}) >= len(BAD_ROWS) - 1


def test_no_address_forces_a_behaviour_of_the_world_by_chance() -> None:
    locals_ = {address.partition(".")[0] for address in addresses(5_000, 10)}
    assert not locals_ & set(BEHAVIOURS)
