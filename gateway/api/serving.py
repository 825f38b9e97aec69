"""One request from its first byte to its answer, alike for every route.

Owns the order: who asks → may they → how often have they → how much is it → what does it say → in a transaction of the site: was it
answered before, the handler, store the answer → commit → tell. Must not know a resource.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from litestar import Request
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import Message, Receive, Send

from gateway.api import errors, rates
from gateway.api.decode import decode
from gateway.api.endpoint import Access, Call, Endpoint
from gateway.api.errors import PROBLEM_JSON, Malformed, TooLarge
from gateway.api.services import Services
from gateway.errors import CampaignsDisabled, Forbidden, GatewayError, Invalid, RateLimited, Unauthorized
from gateway.store import idempotency
from gateway.store.sites import Holder
from gateway.store.tenancy import as_site
from gateway.telemetry import Event, log

AnyRequest = Request[Any, Any, Any]

_ENCODER: Final = msgspec.json.Encoder()
KEY_LIMIT: Final = 255
"""Characters of an Idempotency-Key, at most."""
SEND_PATIENCE_S: Final = 60.0
"""How long a client of a streamed answer may take nothing of it."""

_Body = bytes | AsyncIterator[bytes]


class Empty(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request that has nothing to say."""


class Reply(msgspec.Struct, frozen=True):
    """What a handler may give instead of a Struct: the bytes themselves, a status where it is not the route's, and headers."""

    body: bytes
    status: int | None = None
    headers: Mapping[str, str] = {}


class Streamed(msgspec.Struct, frozen=True):
    """What a handler with `own_transaction` may give: a body that is made while it is sent. It holds no transaction meanwhile."""

    chunks: AsyncIterator[bytes]
    headers: Mapping[str, str] = {}


class PatientStream(ASGIStreamingResponse):
    """A streamed answer that ends when its client takes nothing of it for `SEND_PATIENCE_S`, and then closes what makes it."""

    __slots__ = ()

    async def send_body(self, send: Send, receive: Receive) -> None:
        """Send what is made, as long as it is taken."""

        async def send_within(message: Message) -> None:
            async with asyncio.timeout(SEND_PATIENCE_S):
                await send(message)

        try:
            await super().send_body(send_within, receive)
        except* TimeoutError:
            pass  # the server ends the connection of an answer that is not whole
        finally:
            if isinstance(self.iterator, AsyncGenerator):
                await self.iterator.aclose()


_EMPTY: Final = msgspec.json.Decoder(Empty)


class Handler:
    """Serves one route."""

    def __init__(self, endpoint: Endpoint, services: Services) -> None:
        self._endpoint, self._services = endpoint, services
        self._decoder = msgspec.json.Decoder(endpoint.body) if endpoint.body is not None else None
        duration = services.metrics.api_duration_s
        self._parameters = endpoint.parameters
        self._route = f"{endpoint.method} {endpoint.path}"
        self._durations = {200: duration.labels(self._route, "200")}
        self._duration = duration

    async def __call__(self, request: AnyRequest) -> ASGIResponse:
        """Answer a request; every error has become an answer."""
        clock = self._services.clock
        began = clock.monotonic()
        request_id = new_request_id()
        limits: dict[str, str] = {}
        try:
            status, body, headers = await self._serve(request, request_id, limits)
            response = self._respond(status, body, request_id, self._endpoint.media_type, headers)
        except GatewayError as error:
            answer = errors.answer(error, request_id)
            response = self._respond(answer.status, answer.body, request_id, PROBLEM_JSON)
            if answer.retry_after_s is not None:
                response.headers["retry-after"] = str(max(1, math.ceil(answer.retry_after_s)))
            if answer.status == 401:
                response.headers["www-authenticate"] = "Bearer"
        except Exception:
            log.exception(Event.API_REQUEST, route=self._route, status=500, request_id=request_id)
            response = self._respond(500, _ENCODER.encode(errors.bug(request_id)), request_id, PROBLEM_JSON)
        for name, value in limits.items():
            response.headers[name] = value
        self._note(response.status_code, clock.monotonic() - began, request_id)
        return response

    async def _serve(
        self, request: AnyRequest, request_id: str, limits: dict[str, str]
    ) -> tuple[int, _Body, Mapping[str, str]]:
        """Serve; `limits` takes the fields that tell of the key's rate, however this ends."""
        endpoint = self._endpoint
        holder = await authorize(self._services, endpoint, request)
        if holder is not None:
            api = self._services.config.api
            try:
                limits |= self._services.rates.take(holder.key_id, api.requests_per_s, api.requests_burst)
            except RateLimited as error:
                limits |= rates.fields(api.requests_per_s, api.requests_burst, 0, error.retry_after_s)
                raise
            check_query(request, self._parameters)
        if endpoint.consumes:
            _check_content_type(request, endpoint.consumes)
        call = Call(self._services, endpoint, request, holder, request_id)
        if endpoint.own_transaction:
            return self._encode(await endpoint.handler(call))
        data: tuple[object, ...] = ()
        if endpoint.method != "GET":
            call.body = await read_body(request, self._services.config.api.body_limit_bytes)
        if self._decoder is not None:
            data = (decode(call.body, self._decoder),)
        elif call.body and not endpoint.consumes:
            decode(call.body, _EMPTY)
        key = idempotency_key(request) if endpoint.method == "POST" else None
        site_id = holder.site_id if holder else None
        result: object = None
        async with as_site(
            self._services.pool, site_id, timeout_s=self._services.config.database.acquire_timeout_s
        ) as connection:
            call.connection = connection
            if key is not None:
                stored = await idempotency.reserve(connection, site_id or 0, key, digest(request, call.body))
                if stored is not None:
                    return stored.status, stored.answer, {}
            result = await endpoint.handler(call, *data)
            status, body, headers = self._encode(result)
            if key is not None:
                assert isinstance(body, bytes), "what is streamed has own_transaction"
                kept = body if endpoint.keep is None else _ENCODER.encode(endpoint.keep(result))
                await idempotency.store(connection, site_id or 0, key, status, kept)
        if endpoint.then is not None:
            await endpoint.then(call, result)
        return status, body, headers

    def _encode(self, result: object) -> tuple[int, _Body, Mapping[str, str]]:
        if isinstance(result, Streamed):
            return self._endpoint.status, result.chunks, result.headers
        if isinstance(result, Reply):
            return result.status or self._endpoint.status, result.body, result.headers
        return self._endpoint.status, b"" if result is None else _ENCODER.encode(result), {}

    @staticmethod
    def _respond(
        status: int, body: _Body, request_id: str, media_type: str, headers: Mapping[str, str] | None = None
    ) -> ASGIResponse:
        sent = {"x-request-id": request_id, "cache-control": "no-store", **(headers or {})}
        if not isinstance(body, bytes):
            return PatientStream(iterator=body, status_code=status, media_type=media_type, headers=sent)
        return ASGIResponse(body=body, status_code=status, media_type=media_type, headers=sent)

    def _note(self, status: int, duration_s: float, request_id: str) -> None:
        bound = self._durations.get(status)
        if bound is None:
            bound = self._durations[status] = self._duration.labels(self._route, str(status))
        bound.observe(duration_s)
        method, _, route = self._route.partition(" ")
        write = log.debug if status < 400 else log.info
        write(
            Event.API_REQUEST,
            method=method,
            route=route,
            status=status,
            duration_s=duration_s,
            request_id=request_id,
        )


def new_request_id() -> str:
    """Return a name for a request, by which the log and its answer are put together."""
    return secrets.token_hex(8)


async def authorize(services: Services, endpoint: Endpoint, request: AnyRequest) -> Holder | None:
    """Return whom the request's key speaks for, who may use the route; None where a route needs no key.

    Raises:
        Unauthorized: no key, or one that is unknown or revoked.
        Forbidden: the key does not open this route, or its site is suspended.
        CampaignsDisabled: the route is for campaigns, and the site has none.
        StoreUnavailable: Postgres does not answer.
    """
    if endpoint.access is Access.PUBLIC:
        return None
    holder = await services.auth.holder(_token(request.headers.get("authorization")))
    _allow(endpoint, holder)
    return holder


async def read_body(request: AnyRequest, limit_bytes: int) -> bytes:
    """Read a body whose size is checked before and while it comes.

    Raises:
        TooLarge: it is above the limit.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:18]) > limit_bytes:
        raise TooLarge([("", f"a body of {announced[:18]} bytes; at most {limit_bytes}")])
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit_bytes:
            raise TooLarge([("", f"a body of more than {limit_bytes} bytes")])
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def idempotency_key(request: AnyRequest) -> str | None:
    """Return the request's Idempotency-Key, if it has one.

    Raises:
        Invalid: it is empty, too long, or not of printable ASCII.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= KEY_LIMIT and key.isascii() and key.isprintable()):
        raise Invalid([("", f"Idempotency-Key: expected 1 to {KEY_LIMIT} printable characters of ASCII")])
    return key


def digest(request: AnyRequest, body: bytes) -> bytes:
    """Return what a key is bound to: method, path and body."""
    hashed = hashlib.sha256(f"{request.method} {request.scope['path']}\n".encode())
    hashed.update(body)
    return hashed.digest()


def check_query(request: AnyRequest, known: Sequence[str]) -> None:
    """Refuse a query that says what the route does not read: a filter that is misspelt would find everything.

    Raises:
        Invalid: a parameter is not known, or given more than once; says which there are.
    """
    if not request.scope["query_string"]:
        return
    given: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name not in known:
            raise Invalid([("", f"unknown parameter {name}; there are {', '.join(known) or 'none'}")])
        if name in given:
            raise Invalid([("", f"{name}: given twice; expected once")])
        given.add(name)


def _check_content_type(request: AnyRequest, wanted: str) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != wanted:
        raise Malformed([("", f"expected the content type {wanted}")])


def _token(authorization: str | None) -> str:
    scheme, _, token = (authorization or "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized("expected the header Authorization: Bearer <API key>")
    return token


def _allow(endpoint: Endpoint, holder: Holder) -> None:
    if holder.site_id is None:
        if endpoint.access is Access.SITE:
            raise Forbidden("this needs a key of a site, not an operator's")
        return
    if endpoint.access is Access.OPERATOR:
        raise Forbidden("this needs an operator's key")
    if holder.suspended:
        raise Forbidden("this site is suspended")
    if endpoint.scopes and not holder.scopes & endpoint.scopes and "admin" not in holder.scopes:
        raise Forbidden(f"this needs a key with the scope {' or '.join(sorted(endpoint.scopes))}")
    if endpoint.campaigns and not holder.campaigns:
        raise CampaignsDisabled("campaigns are not switched on for this site; an operator can do that")
