"""Whatever happens to the process or the file, the journal replays to what is true."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import JournalError
from gateway.mta import journal as journal_module
from gateway.mta.journal import Journal, Replay, find_dead, remove, replay


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path, 7)
    yield journal
    journal.close()


def test_the_last_record_of_a_delivery_decides(journal: Journal, tmp_path: Path) -> None:
    for delivery_id in (1, 2, 3, 4, 5):
        journal.tried(delivery_id, 1)
    journal.dotted(2, 1)
    journal.dotted(3, 1)
    journal.answered(3, 1, 250, "2.0.0", "OK über \\ \n tail\u2028")
    journal.ended(4, 1)
    journal.answered(5, 1, 450, None, "")
    assert replay(tmp_path, 7) == Replay(
        results={3: (1, 250, "2.0.0", "OK über \\ \n tail\u2028"), 5: (1, 450, None, "")},
        in_doubt={2: 1},
        started={1: 1},
    )


def test_an_accepted_older_epoch_is_kept_beside_a_newer_attempt(journal: Journal, tmp_path: Path) -> None:
    journal.answered(1, 1, 250, None, "accepted")
    journal.tried(1, 2)
    journal.answered(1, 2, 550, None, "duplicate refused")
    journal.tried(1, 3)
    assert replay(tmp_path, 7) == Replay(results={1: (1, 250, None, "accepted")}, in_doubt={}, started={1: 3})


def test_nothing_but_a_reply_takes_back_a_dot(journal: Journal, tmp_path: Path) -> None:
    journal.tried(1, 1)
    journal.dotted(1, 1)
    journal.ended(1, 1)
    journal.tried(1, 1)
    assert replay(tmp_path, 7).in_doubt == {1: 1}


records = st.lists(
    st.tuples(
        st.sampled_from(["TRY", "DOT", "RES", "END"]),
        st.integers(1, 6),
        st.integers(1, 3),
        st.text(max_size=12),
    ),
    max_size=30,
)


def append(journal: Journal, record: tuple[str, int, int, str]) -> None:
    word, delivery_id, epoch, text = record
    if word == "TRY":
        journal.tried(delivery_id, epoch)
    elif word == "DOT":
        journal.dotted(delivery_id, epoch)
    elif word == "RES":
        journal.answered(delivery_id, epoch, 250, None, text)
    else:
        journal.ended(delivery_id, epoch)


@given(records, st.data())
def test_a_file_torn_at_any_byte_replays_to_its_whole_records(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[str, int, int, str]], data: st.DataObject
) -> None:
    whole, torn = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("torn")
    journal = Journal(whole, 1)
    ends = [0]
    for record in records:
        append(journal, record)
        ends.append(journal.size_bytes)
    journal.close()
    content = (whole / "inc-1.0.log").read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    (torn / "inc-1.0.log").write_bytes(content[:cut])
    got = replay(torn, 1)

    kept = [record for record, end in zip(records, ends[1:], strict=True) if end <= cut]
    last: dict[tuple[int, int], set[str]] = {}
    for word, delivery_id, epoch, _ in kept:
        seen = last.setdefault((delivery_id, epoch), set())
        if word in ("RES", "DOT") or not seen & {"RES", "DOT"}:
            seen -= {"TRY", "END"}
            seen.add(word)
    assert set(got.results) == {i for (i, _), seen in last.items() if "RES" in seen}
    assert got.in_doubt == {
        i: e for (i, e), seen in sorted(last.items()) if "DOT" in seen and "RES" not in seen
    }
    assert got.started == {i: e for (i, e), seen in sorted(last.items()) if seen == {"TRY"}}
    assert got.damaged_lines == (cut not in ends)


@given(st.text())
def test_any_text_comes_back_from_one_line(text: str) -> None:
    escaped = journal_module._escape(text)
    assert "\n" not in escaped
    assert "\r" not in escaped
    assert journal_module._unescape(escaped) == text


def test_a_segment_goes_once_all_its_deliveries_are_acknowledged(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 1)
    journal.tried(1, 1)
    journal.tried(2, 1)
    journal.rotate()
    journal.answered(1, 1, 250, None, "")
    journal.tried(3, 1)
    journal.rotate()
    names = lambda: sorted(p.name for p in tmp_path.glob("*.log"))  # noqa: E731
    journal.acknowledged([1, 3, 99])
    assert len(names()) == 3  # delivery 2 was opened in the first, and later ones may speak of it
    journal.acknowledged([2])
    assert names() == ["inc-1.2.log"]
    assert (journal.open_count, journal.size_bytes) == (0, 0)
    journal.close()


def test_a_late_acknowledgement_of_an_older_epoch_does_not_close_the_newer_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 1)
    journal.tried(1, 1)
    journal.ended(1, 1)
    journal.tried(1, 2)  # leased again before this process heard that epoch 1 was acknowledged
    journal.dotted(1, 2)
    journal.rotate()
    journal.acknowledged([1])
    assert replay(tmp_path, 1).in_doubt == {1: 2}
    journal.acknowledged([1])
    assert replay(tmp_path, 1).in_doubt == {}
    journal.close()


def test_segments_rotate_by_size_and_replay_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 1, segment_bytes=100)
    for delivery_id in range(200):
        journal.tried(delivery_id, 1)
        journal.dotted(delivery_id, 1)
    assert len(list(tmp_path.glob("*.log"))) > 10
    assert replay(tmp_path, 1).in_doubt == dict.fromkeys(range(200), 1)
    journal.close()


@pytest.mark.parametrize("kind", ["error", "short"])
def test_a_full_disk_stops_for_good(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    journal.tried(1, 1)
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if kind == "error":
            raise OSError(28, "No space left on device")
        return write(fd, data[:5])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(JournalError, match="sending stops"):
        journal.dotted(1, 1)
    monkeypatch.setattr(os, "write", write)
    with pytest.raises(JournalError):
        journal.tried(2, 1)
    assert replay(tmp_path, 7).started == {1: 1}


def test_one_journal_per_incarnation(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="incarnation 7"):
        Journal(tmp_path, 7)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["inc-7.0.log", "inc-7.lock"]


def test_the_living_are_not_found_dead(journal: Journal, tmp_path: Path) -> None:
    journal.tried(1, 1)
    assert find_dead(tmp_path) == []
    journal.close()
    assert find_dead(tmp_path) == [7]
    with pytest.raises(JournalError, match="closed"):
        journal.tried(2, 1)
    remove(tmp_path, 7)
    assert (find_dead(tmp_path), list(tmp_path.iterdir())) == ([], [])
    assert find_dead(tmp_path / "nowhere") == []
    assert replay(tmp_path / "nowhere", 1) == Replay({}, {}, {})


CHILD = """
import sys
from pathlib import Path
from gateway.mta.journal import Journal
journal = Journal(Path(sys.argv[1]), 3, segment_bytes=2000)
i = 0
while True:
    i += 1
    journal.tried(i, 1)
    journal.dotted(i, 1)
    if i % 3: journal.answered(i, 1, 250, "2.0.0", "ok")
    if i == 500: print("running", flush=True)
"""


def test_kill_9_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"running\n"
        assert find_dead(tmp_path) == []
        child.send_signal(signal.SIGKILL)
    assert find_dead(tmp_path) == [3]
    got: Any = replay(tmp_path, 3)
    assert all(got.results[i] == (1, 250, "2.0.0", "ok") for i in range(1, 501) if i % 3)
    assert all(i in got.in_doubt for i in range(3, 500, 3))
    assert len(got.started) <= 1
    assert got.damaged_lines == 0
