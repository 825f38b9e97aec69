"""Suppression lists as files: what is taken, and which line is refused why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.suppression_file import Entry, Refused, read_entries


def read(text: str) -> list[Entry | Refused]:
    return list(read_entries(text.splitlines(keepends=True), "all", "import"))


def test_bare_addresses_one_a_line() -> None:
    assert read("ada@One.example\n\n  bob@two.example \n") == [
        Entry("ada@one.example", "all", "import", ""),
        Entry("bob@two.example", "all", "import", ""),
    ]


def test_csv_with_a_header_in_any_order_and_further_columns() -> None:
    text = '\ufeffreason,Email,x,scope\r\n"moved, away",ada@one.example,1,marketing\r\n,bob@two.example\r\n'
    assert read(text) == [
        Entry("ada@one.example", "marketing", "moved, away", ""),
        Entry("bob@two.example", "all", "import", ""),
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nobody,,,", "email: "),
        (",all,,", "email: "),
        ("a@a.example,some,,", 'scope: "some"; expected all or marketing'),
        (f"a@a.example,,{'x' * 101},", "reason: expected at most 100 characters"),
        (f"a@a.example,,,{'x' * 1_001}", "evidence: expected at most 1000 characters"),
        ("a@a.example,,a\0b,", "reason: "),
    ],
)
def test_a_wrong_line_is_refused_by_its_number_and_no_other(line: str, says: str) -> None:
    found = read(f"email,scope,reason,evidence\ngood@a.example,,,\n{line}\nlast@a.example,,,\n")
    refused = found[1]
    assert isinstance(refused, Refused)
    assert refused.line == 3
    assert refused.why.startswith(says)
    assert [one.email for one in found if isinstance(one, Entry)] == ["good@a.example", "last@a.example"]


@given(st.text())
def test_any_text_is_read_to_its_end(text: str) -> None:
    for entry in read(text):
        assert isinstance(entry, Refused) or entry.scope in ("all", "marketing")
