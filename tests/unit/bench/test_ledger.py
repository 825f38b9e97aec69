"""The ledger: its format, and what the comparison finds."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load.ledger import (
    ACCEPTED,
    DROPPED,
    REFUSED,
    Books,
    Ledger,
    compare,
    event,
    message_key,
    parse,
    read,
)


def accepted(key: str, *, replied: bool = True, delivery: str = "") -> str:
    message_id, _, recipient = key.partition(" ")
    line = event(
        ACCEPTED, 1.5, 250 if replied else 0, recipient.encode(),
        replied=replied, size=10, message_id=message_id.encode(), delivery=delivery.encode(),
    )  # fmt: skip
    return line.decode()


def test_parse_counts_every_kind() -> None:
    ledger = parse(
        [
            accepted("1 a@x"),
            accepted("2 b@x", replied=False),
            accepted("2 b@x"),
            accepted("3 c@x"),
            accepted("3 c@x"),
            accepted("3 c@x"),
            event(REFUSED, 2.0, 550, b"d@x").decode(),
            event(REFUSED, 2.0, 550, b"e@x").decode(),
            event(REFUSED, 2.0, 451, b"e@x").decode(),
            event(DROPPED, 3.0, 0, b"f@x", replied=False).decode(),
        ]
    )
    assert ledger.replied == {"1 a@x", "2 b@x", "3 c@x"}
    assert ledger.unreplied == {"2 b@x"}
    assert ledger.duplicates == {"2 b@x": 2, "3 c@x": 3}
    assert ledger.accepts == 6
    assert ledger.refused == {550: 2, 451: 1}
    assert ledger.dropped == 1
    assert (ledger.first_s, ledger.last_s) == (1.5, 1.5)


def test_one_message_to_two_recipients_is_no_duplicate() -> None:
    assert parse([accepted("1 a@x"), accepted("1 b@x")]).duplicates == {}


def test_delivery_key_falls_back_to_the_message() -> None:
    lines = [accepted("1 a@x", delivery="d1"), accepted("2 b@x")]
    assert parse(lines, by="delivery").replied == {"d1", "2 b@x"}


@pytest.mark.parametrize("text", [b"a\tb@x", b"a\nb@x", b"a\rb@x", b"a\x00b@x", b"a\x7fb@x"])
def test_control_characters_cannot_forge_a_line(text: bytes) -> None:
    line = event(ACCEPTED, 1.0, 250, text, message_id=text, delivery=text).decode()
    assert parse([line]).replied == {"a?b@x a?b@x"}


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_any_bytes_make_one_line_that_reads_back(recipient: bytes, message_id: bytes) -> None:
    line = event(ACCEPTED, 1.0, 250, recipient, message_id=message_id)
    assert line.count(b"\n") == 1
    ledger = parse([line.decode("utf-8", "surrogateescape")])
    assert ledger.accepts == len(ledger.replied) == 1


def test_message_key_meets_the_ledger() -> None:
    assert message_key("<1@gw> ", "Ann@X.Test") == "1@gw Ann@x.test"


def test_torn_last_line_is_not_an_event(tmp_path: Path) -> None:
    path = tmp_path / "ledger.tsv"
    path.write_text(accepted("1 a@x") + accepted("2 b@x")[:-1])
    assert read(path).replied == {"1 a@x"}


@pytest.mark.parametrize("line", ["hello\n", "eaten" + accepted("1 a@x")[8:]])
def test_what_is_no_ledger_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(ValueError, match="ledger line 2"):
        parse([accepted("1 a@x"), line])


ALL = frozenset({"1 a@x", "2 b@x"})


@pytest.mark.parametrize(
    ("books", "lines", "field"),
    [
        (Books({"1 a@x"}), [], "missing"),
        (Books({"1 a@x"}), [accepted("1 a@x", replied=False)], "unproven"),
        (Books(set()), [accepted("1 a@x")], "unknown"),
        (Books(set()), [accepted("1 a@x", replied=False)], "undoubted"),
        (Books({"1 a@x"}), [accepted("1 a@x")] * 2, "duplicates_not_in_doubt"),
    ],
)
def test_each_fault_unbalances_the_books(books: Books, lines: list[str], field: str) -> None:
    findings = compare(books, parse(lines))
    assert not findings.balanced
    assert getattr(findings, field) == ("1 a@x",)
    assert "DO NOT BALANCE" in findings.lines()[0]
    assert any("1 a@x" in line for line in findings.lines()[1:])
    faults = ("missing", "unproven", "unknown", "undoubted", "duplicates_not_in_doubt")
    assert [fault for fault in faults if getattr(findings, fault)] == [field]


def test_ended_but_taken_is_called_contradicted() -> None:
    findings = compare(Books(set(), ended={"1 a@x"}), parse([accepted("1 a@x")]))
    assert findings.unknown == findings.contradicted == ("1 a@x",)


@pytest.mark.parametrize(
    ("books", "lines"),
    [
        (Books(ALL), [accepted("1 a@x"), accepted("2 b@x")]),
        (Books(set(), in_doubt={"1 a@x"}), []),  # in doubt, and lost: known
        (Books(set(), in_doubt={"1 a@x"}), [accepted("1 a@x", replied=False)]),
        (Books(set(), in_doubt={"1 a@x"}), [accepted("1 a@x")]),  # its 250 was never read
        (Books({"1 a@x"}, in_doubt={"1 a@x"}), [accepted("1 a@x", replied=False), accepted("1 a@x")]),
        (Books(set(), ended={"1 a@x"}), [event(REFUSED, 1.0, 550, b"a@x").decode()]),
        (Books(set()), []),
    ],
)
def test_what_is_accounted_for_balances(books: Books, lines: list[str]) -> None:
    findings = compare(books, parse(lines))
    assert findings.balanced
    assert len(findings.lines()) == 1


KEYS = st.sampled_from([f"{n} a@x" for n in range(6)])


@given(st.sets(KEYS), st.sets(KEYS), st.lists(st.tuples(KEYS, st.booleans()), max_size=20))
def test_balanced_means_what_it_says(
    delivered: set[str], doubted: set[str], events: list[tuple[str, bool]]
) -> None:
    """Against the definition, key by key."""
    findings = compare(Books(delivered, doubted), parse(accepted(key, replied=told) for key, told in events))
    right = True
    for key in delivered | {key for key, _ in events}:
        told = [replied for other, replied in events if other == key]
        if key in delivered:
            right &= bool(told) and (any(told) or key in doubted) and (len(told) == 1 or key in doubted)
        else:
            right &= not told or key in doubted
    assert findings.balanced == right


def test_a_hidden_message_is_found_in_a_large_ledger() -> None:
    keys = {f"{n:08}@gw p{n}@example.test" for n in range(100_000)}
    hidden = "00000000@gw p0@example.test"
    findings = compare(Books(keys), Ledger(replied=keys - {hidden}, accepts=len(keys) - 1))
    assert findings.missing == (hidden,)
