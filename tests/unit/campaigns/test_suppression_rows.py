"""Files of suppressions: each row is taken or refused alone, and what we write we can read."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.campaigns.csv_rows import Refused
from gateway.campaigns.suppression_rows import SuppressionRow, read_suppressions, write_rows
from gateway.errors import Invalid


def read(text: str) -> list[SuppressionRow | Refused]:
    return list(read_suppressions(io.StringIO(text, newline="")))


def test_takes_addresses_with_what_is_said_of_them_and_passes_other_columns_over() -> None:
    assert read(
        "Email,Scope,reason,evidence,error code\r\nA@B.example,Marketing,complaint,ticket 7,550\r\nb@c.example,,,,\r\n"
    ) == [
        SuppressionRow(2, "A@b.example", "marketing", "complaint", "ticket 7"),
        SuppressionRow(3, "b@c.example", "all", "import", ""),
    ]
    assert read("email\na@b.example\n") == [SuppressionRow(2, "a@b.example", "all", "import", "")]


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ("nobody,,,", "email"),
        (",,,", "email"),
        ("a@b.example,some,,", "scope"),
        (f"a@b.example,all,{'r' * 101},", "reason"),
        (f"a@b.example,all,r,{'e' * 1001}", "evidence"),
        ("a@b.example,all,r,e,more", ""),
        ("a@b.example,all,r\0,e", "reason"),
    ],
)
def test_a_wrong_row_is_refused_alone_and_says_where(row: str, column: str) -> None:
    refused, taken = read(f"email,scope,reason,evidence\n{row}\nok@b.example,all,r,e\n")
    assert isinstance(refused, Refused)
    assert (refused.line, refused.column) == (2, column)
    assert isinstance(taken, SuppressionRow)


@pytest.mark.parametrize("text", ["", "address\na@b.example\n", "email,email\n"])
def test_a_file_without_a_column_email_is_no_file(text: str) -> None:
    with pytest.raises(Invalid, match="email"):
        read(text)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a@b.example", "+a@b.example", "-a@b.example", "=a@b.example", "'a@b.example", "'=a@b.example"]),
            st.sampled_from(["all", "marketing"]),
            st.text(st.sampled_from("=+-@'ab,\"\n\r"), min_size=1, max_size=8).map(str.strip).filter(bool),
        ),
        max_size=5,
    )
)  # fmt: skip
def test_what_is_written_is_read_again(rows: list[tuple[str, str, str]]) -> None:
    text = write_rows([("email", "scope", "reason"), *rows]).decode()
    for cells in csv.reader(io.StringIO(text, newline="")):
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
    found = read(text)
    assert [(one.email, one.scope, one.reason) for one in found if isinstance(one, SuppressionRow)] == rows


def test_a_file_without_a_header_is_one_address_a_line() -> None:
    *taken, refused = read("\ufeffada@one.example\n\n  bob@two.example \nnobody\n")
    assert taken == [
        SuppressionRow(1, "ada@one.example", "all", "import", ""),
        SuppressionRow(3, "bob@two.example", "all", "import", ""),
    ]
    assert isinstance(refused, Refused)
    assert (refused.line, refused.column, refused.value) == (4, "email", "nobody")


def test_rows_that_do_not_say_their_scope_and_reason_have_the_files() -> None:
    lines = ["email,scope,reason\n", "a@b.example,,\n", "c@d.example,all,asked\n"]
    assert list(read_suppressions(lines, "marketing", "old system")) == [
        SuppressionRow(2, "a@b.example", "marketing", "old system", ""),
        SuppressionRow(3, "c@d.example", "all", "asked", ""),
    ]
