"""A streamed answer whose client takes nothing: it is ended, and what makes it is closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from gateway.api import serving
from gateway.api.serving import PatientStream


async def test_a_client_that_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "SEND_PATIENCE_S", 0.01)
    never = asyncio.Event()
    closed: list[str] = []

    async def pieces() -> AsyncGenerator[bytes]:
        try:
            while True:
                yield b"x"
        finally:
            closed.append("closed")

    async def send(message: object) -> None:
        if isinstance(message, dict) and message["type"] == "http.response.body":
            await never.wait()

    async def receive() -> object:
        await never.wait()
        return {"type": "http.disconnect"}

    response = PatientStream(iterator=pieces())
    async with asyncio.timeout(10):
        await response({}, receive, send)  # type: ignore[arg-type]
    assert closed == ["closed"]


async def test_a_client_that_leaves_ends_what_is_made_for_it() -> None:
    closed: list[str] = []
    gone = asyncio.Event()

    async def pieces() -> AsyncGenerator[bytes]:
        try:
            yield b"x"
            gone.set()
            await asyncio.Event().wait()
        finally:
            closed.append("closed")

    async def send(message: object) -> None:
        pass

    async def receive() -> object:
        await gone.wait()
        return {"type": "http.disconnect"}

    async with asyncio.timeout(10):
        await PatientStream(iterator=pieces())({}, receive, send)  # type: ignore[arg-type]
    assert closed == ["closed"]
