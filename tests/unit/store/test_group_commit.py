"""Group commit: who shares, who waits, and what happens when a group falls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.group_commit import GroupCommit


class Recorder:
    """Commits when it is told to, and remembers the groups."""

    def __init__(self, *, bad: str = "", error: Exception | None = None) -> None:
        self.groups: list[list[str]] = []
        self.go = asyncio.Event()
        self.bad, self.error = bad, error

    async def commit(self, requests: Sequence[str]) -> list[str]:
        self.groups.append(list(requests))
        await self.go.wait()
        if self.error is not None:
            raise self.error
        if self.bad in requests:
            raise ValueError(self.bad)
        return [request.upper() for request in requests]


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_comes_while_groups_are_in_flight_shares_the_next() -> None:
    recorder = Recorder(bad="-")
    group = GroupCommit[str, str](recorder.commit, len, parallel=1)
    tasks = [asyncio.create_task(group.submit("site", one)) for one in "abcd"]
    await _settle()
    assert recorder.groups == [["a", "b", "c", "d"]] or recorder.groups == [["a"]]
    recorder.go.set()
    assert await asyncio.gather(*tasks) == ["A", "B", "C", "D"]
    assert len(recorder.groups) <= 2


async def test_keys_do_not_share() -> None:
    recorder = Recorder(bad="-")
    recorder.go.set()
    group = GroupCommit[str, str](recorder.commit, len)
    assert await asyncio.gather(*(group.submit(one, one) for one in "ab")) == ["A", "B"]
    assert sorted(recorder.groups) == [["a"], ["b"]]


async def test_a_group_is_no_heavier_than_it_may_be() -> None:
    recorder = Recorder(bad="-")
    recorder.go.set()
    group = GroupCommit[str, str](recorder.commit, len, weight=4, parallel=1)
    await asyncio.gather(*(group.submit("site", one) for one in ("aa", "bb", "cc", "eeeeeee")))
    assert [sum(map(len, one)) for one in recorder.groups] == [4, 2, 7]


async def test_one_bad_request_is_refused_alone() -> None:
    recorder = Recorder(bad="b")
    recorder.go.set()
    group = GroupCommit[str, str](recorder.commit, len, parallel=1)
    results = await asyncio.gather(*(group.submit("site", one) for one in "abc"), return_exceptions=True)
    assert results[0] == "A"
    assert isinstance(results[1], ValueError)
    assert results[2] == "C"


async def test_an_outage_is_everybodys() -> None:
    recorder = Recorder(bad="-", error=StoreUnavailable("away"))
    recorder.go.set()
    group = GroupCommit[str, str](recorder.commit, len, parallel=1)
    results = await asyncio.gather(*(group.submit("site", one) for one in "abc"), return_exceptions=True)
    assert all(isinstance(one, StoreUnavailable) for one in results)
    assert len(recorder.groups) == 1, "nobody tries an outage one by one"


async def test_a_caller_that_gave_up_does_no_harm() -> None:
    recorder = Recorder(bad="-")
    group = GroupCommit[str, str](recorder.commit, len, parallel=1)
    gone = asyncio.create_task(group.submit("site", "a"))
    stays = asyncio.create_task(group.submit("site", "b"))
    await _settle()
    gone.cancel()
    recorder.go.set()
    assert await stays == "B"
    with pytest.raises(asyncio.CancelledError):
        await gone
