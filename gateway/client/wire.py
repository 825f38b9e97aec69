"""What both clients say to httpx alike: headers, requests, answers.

Owns the translation between `client/exchange` and httpx. Must not know waiting.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import httpx

from gateway import __version__
from gateway.client.call import Call
from gateway.client.exchange import Answer
from gateway.client.following import SILENCE_S

TIMEOUT_S: Final = 30.0


def base_of(url: str) -> httpx.URL:
    """Check where the gateway is.

    Raises:
        ValueError: that is no absolute URL of HTTP.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is no URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{url!r}: expected a URL such as https://gateway.example")
    if parsed.userinfo:  # httpx would send it instead of the key; it is not shown: it may hold a password
        raise ValueError(
            "a URL with a user name: expected one such as https://gateway.example, and the key apart"
        )
    return parsed


def headers_of(key: str) -> dict[str, str]:
    """The headers of every request.

    Raises:
        ValueError: the key cannot stand in a header; it is not shown.
    """
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("expected an API key, such as gw_…: printable ASCII without spaces")
    return {
        "authorization": f"Bearer {key}",
        "accept": "application/json",
        "user-agent": f"delivery-gateway-client/{__version__}",
    }


def new_key() -> str:
    """An idempotency key that nobody else has."""
    return secrets.token_hex(16)


def request_of(
    http: httpx.Client | httpx.AsyncClient,
    call: Call[Any],
    headers: Mapping[str, str],
    body: bytes | Iterable[bytes] | AsyncIterable[bytes],
) -> httpx.Request:
    """One try as httpx has it."""
    return http.build_request(
        call.method,
        call.path,
        params=call.query or None,
        headers=headers,
        content=body or None,
        timeout=httpx.USE_CLIENT_DEFAULT if call.timeout_s is None else call.timeout_s,
    )


def answer_of(response: httpx.Response) -> Answer:
    """What came back."""
    return Answer(response.status_code, response.headers, response.content, datetime.now(UTC))


def stream_request_of(
    http: httpx.Client | httpx.AsyncClient, path: str, headers: Mapping[str, str]
) -> httpx.Request:  # fmt: skip
    """One opening of a stream as httpx has it."""
    usual = http.timeout
    timeout = httpx.Timeout(connect=usual.connect, read=SILENCE_S, write=usual.write, pool=usual.pool)
    return http.build_request("GET", path, headers=headers, timeout=timeout)


def is_stream(response: httpx.Response) -> bool:
    """Whether events come, and no refusal."""
    kind = response.headers.get("content-type", "")
    return response.status_code == 200 and kind.startswith("text/event-stream")


def is_lasting(error: httpx.RequestError) -> bool:
    """Whether another try would end alike: we are wrong, or whoever answers speaks another language."""
    return isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError | httpx.DecodingError)
