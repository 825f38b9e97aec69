"""What a migration asks of the code beside it, and what follows for a chain of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.store.phases import Phase, oldest_schema, read_phase


@pytest.mark.parametrize(
    ("sql", "phase", "code_from"),
    [
        ("create table a ();", Phase.CHANGE, 7),
        ("-- phase: expand\ncreate table a ();", Phase.EXPAND, 3),
        ("-- What it is for.\n-- phase: expand  \n", Phase.EXPAND, 3),
        ("-- phase: contract from 0005\ndrop table a;", Phase.CONTRACT, 5),
        ("-- phase: contract from 0007\n", Phase.CONTRACT, 7),
        # What an earlier migration asked for is not taken back.
        ("-- phase: contract from 0002\n", Phase.CONTRACT, 3),
        ("select '-- phase: expand';", Phase.CHANGE, 7),
    ],
)
def test_reads_what_a_migration_says(sql: str, phase: Phase, code_from: int) -> None:
    assert read_phase(sql, 7, 3) == (phase, code_from)


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("-- phase: shrink", "no phase `shrink`; expected `expand` or"),
        ("-- phase:", "no phase ``"),
        ("-- phase: contract", "no phase `contract`"),
        ("-- phase: contract from 18", "expected `expand` or `contract from 0018`"),
        ("-- phase: contract from 0008", "contract from 0008"),
        ("-- phase: expand\n-- phase: contract from 0001", "2 lines begin with"),
    ],
)
def test_refuses_what_it_cannot_read(sql: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_phase(sql, 7, 3)


@pytest.mark.parametrize(
    ("phases", "oldest"),
    [
        ("", 0),
        ("change", 1),
        ("change expand", 2),
        ("change expand contract contract", 2),
        ("change contract expand", 3),
        ("contract", 0),
    ],
)
def test_code_does_without_the_contracts_at_its_end(phases: str, oldest: int) -> None:
    chain = [(number, Phase(phase)) for number, phase in enumerate(phases.split(), start=1)]
    assert oldest_schema(chain) == oldest


@given(st.lists(st.sampled_from(list(Phase)), min_size=1, max_size=20), st.data())
def test_no_later_migration_lets_older_code_in_again(chain: list[Phase], data: st.DataObject) -> None:
    asked = [0]
    for number, phase in enumerate(chain, start=1):
        said = {Phase.EXPAND: "-- phase: expand", Phase.CHANGE: ""}.get(phase)
        if said is None:
            said = f"-- phase: contract from {data.draw(st.integers(1, number)):04}"
        read, code_from = read_phase(said, number, asked[-1])
        assert read is phase
        assert code_from <= number
        asked.append(code_from)
    assert asked == sorted(asked)
