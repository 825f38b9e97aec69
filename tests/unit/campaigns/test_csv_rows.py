"""CSV rows: what can be read is read, what cannot is refused by line, column and reason, and only that."""

from __future__ import annotations

import io

import pytest

from gateway.campaigns.csv_rows import ContactRow, Refused, read_rows
from gateway.campaigns.imports import read_lines
from gateway.errors import Invalid


def rows(content: bytes) -> list[ContactRow | Refused]:
    return list(read_rows(read_lines(io.BytesIO(content))))


def one(content: bytes) -> ContactRow | Refused:
    (row,) = rows(b"email,first_name,tags,company\n" + content)
    return row


def test_reads_columns_tags_and_custom_fields() -> None:
    row = one(b'Ada@One.Example, Ada ,"prospect; london;prospect",Engines\n')
    assert row == ContactRow(
        2, "Ada@one.example", "one.example", "Ada", "", "", ("prospect", "london"), {"company": "Engines"}
    )


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfemail,first_name\r\na@b.example,Ada\r\n",
        b"email,first_name\na@b.example,Ada",
        b"First Name,E-Mail\nAda,a@b.example\n".replace(b"E-Mail", b"email"),
        b'"email","first_name"\n"a@b.example","Ada"\n\n\n',
    ],
)
def test_reads_the_usual_forms(content: bytes) -> None:
    (row,) = rows(content)
    assert isinstance(row, ContactRow)
    assert (row.email, row.first_name) == ("a@b.example", "Ada")


def test_a_quoted_line_end_belongs_to_its_field_and_lines_still_count() -> None:
    read = rows(b'email,note\na@b.example,"one\ntwo"\nbad,x\n')
    assert isinstance(read[0], ContactRow)
    assert read[0].fields == {"note": "one\ntwo"}
    assert isinstance(read[1], Refused)
    assert read[1].line == 4


@pytest.mark.parametrize(
    ("content", "column", "says"),
    [
        (b"nobody,x,,\n", "email", "no @"),
        (b",x,,\n", "email", "empty"),
        (b"a@b.example,\xff\xfe,,\n", "first_name", "not UTF-8"),
        (b"a@b.example,a\0b,,\n", "first_name", "NUL"),
        (b"a@b.example," + b"x" * 3_000 + b",,\n", "first_name", "3000 characters"),
        (b"a@b.example,x,,y,z\n", "", "5 fields"),
        (b"a@b.example," + b"x" * 400_000 + b",,\n", "", "more than"),
        (b"a@b.example," + b"," * 300_000 + b"\n", "", "more than"),
        (b"a@b.example,x," + b"t" * 101 + b",\n", "tags", "a tag of more"),
    ],
)
def test_refuses_a_bad_row_and_goes_on(content: bytes, column: str, says: str) -> None:
    read = rows(b"email,first_name,tags,company\n" + content + b"good@b.example,,,\n")
    refused, good = read
    assert isinstance(refused, Refused)
    assert (refused.line, refused.column) == (2, column)
    assert says in refused.reason
    assert len(refused.value) <= 80
    refused.value.encode()
    assert isinstance(good, ContactRow)
    assert good.line == 3


def test_a_quote_that_never_ends_spoils_no_more_than_the_limit() -> None:
    lines = b"".join(b"p%d@b.example,x\n" % i for i in range(40_000))
    read = rows(b'email,first_name\nbad@b.example,"open\n' + lines)
    refused = [row for row in read if isinstance(row, Refused)]
    assert len(refused) == 1
    assert len(read) > 20_000


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"name,phone\nx,y\n", "no column email"),
        (b"email,email\n", "twice"),
        (b"email,\n", "no usable name"),
        (b"email," + b"a," * 300 + b"b\n", "columns; at most"),
        (b"email,\xff\n", "no usable name"),
        (b"x" * 600_000, "no usable name"),
    ],
)
def test_a_file_without_a_usable_header_is_refused_whole(content: bytes, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        rows(content)
