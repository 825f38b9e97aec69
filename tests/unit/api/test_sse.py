"""Server-Sent Events as a browser reads them."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.sse import HEARTBEAT, event, retry


def read(stream: bytes) -> list[dict[str, str]]:
    """WHATWG HTML §9.2.6: fields up to each empty line; a line that begins with a colon is a comment."""
    events: list[dict[str, str]] = []
    for block in stream.decode().split("\n\n")[:-1]:
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            if name:
                assert name not in fields
                fields[name] = value.removeprefix(" ")
        if fields:
            events.append(fields)
    return events


@given(st.dictionaries(st.text(), st.text() | st.integers(-9, 9)))
def test_whatever_is_told_stays_one_event(data: dict[str, object]) -> None:
    encoded = msgspec.json.encode(data)
    (found,) = read(event("progress", encoded, "0a"))
    assert (found["id"], found["event"]) == ("0a", "progress")
    assert msgspec.json.decode(found["data"]) == data


def test_a_heartbeat_is_no_event() -> None:
    assert read(retry(2_000) + HEARTBEAT + event("end", b"{}", "1") + HEARTBEAT) == [
        {"retry": "2000"}, {"id": "1", "event": "end", "data": "{}"},
    ]  # fmt: skip
