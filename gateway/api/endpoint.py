"""The table of the API: what each route takes, gives and asks of its caller's key.

Owns the words in which a resource's module describes its routes. Must not know a resource, nor how a request is served
(`api/serving`). The server, the OpenAPI document and the tests that go over all routes read this table and nothing else.

    routes = Routes("templates")

    @routes.add("GET", "/v1/templates/{id}", answer=TemplateView, scopes={"read"})
    async def get_template(call: Call) -> TemplateView: ...
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from enum import StrEnum
from typing import Any, Final, Literal, TypeVar

import msgspec
from litestar import Request

from gateway.api.described import Described
from gateway.api.services import Services
from gateway.errors import Forbidden, Invalid, NotFound
from gateway.model.ids import Prefix, decode
from gateway.store.pool import Connection
from gateway.store.sites import Holder

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
PAGE_LIMIT: Final = 1_000
PAGE_DEFAULT: Final = 100
SCOPES: Final = ("send", "read", "contacts", "campaigns", "admin")
"""What a site's key may be allowed; `admin` includes the others."""

_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[object]])


class Access(StrEnum):
    """Whose keys open a route."""

    PUBLIC = "public"
    """No key at all."""
    OPERATOR = "operator"
    SITE = "site"
    BOTH = "both"


class Endpoint(msgspec.Struct, frozen=True):
    """One route.

    `own_transaction`: the handler opens what it needs, and does its own idempotency; else it runs in a transaction of the site
    with `call.connection`, and a POST with an Idempotency-Key is stored with its answer. `keep`: what is stored of the answer,
    where that must not be all of it. `rules`: what a schema can say of the body beside its type; `uploads`: bodies that the handler
    reads by itself, by content type; `problems`: the types of its own, beside those that all routes of its kind have; `statuses`: of
    further answers that are no problem; `reads` and `gives`: headers of its own.
    """

    method: Method
    path: str
    group: str
    summary: str
    handler: Callable[..., Awaitable[Any]]
    body: Any
    answer: Any
    status: int
    access: Access
    scopes: frozenset[str]
    campaigns: bool
    own_transaction: bool
    query: Mapping[str, str | Described]
    media_type: str
    consumes: str
    keep: Callable[[Any], Any] | None
    then: Callable[[Call, Any], Awaitable[None]] | None
    rules: Mapping[str, Any]
    uploads: Mapping[str, Any]
    problems: frozenset[str]
    statuses: Mapping[int, str]
    reads: Mapping[str, str]
    gives: Mapping[str, str]

    @property
    def is_page(self) -> bool:
        """Whether the answer is a page, and so `limit` and `after` mean something."""
        return hasattr(getattr(self.answer, "__origin__", None), "has_more")

    @property
    def parameters(self) -> tuple[str, ...]:
        """All that the query may hold."""
        return tuple(dict.fromkeys((*self.query, *(("limit", "after") if self.is_page else ()))))


class Call:
    """One request, as a handler sees it."""

    def __init__(
        self,
        services: Services,
        endpoint: Endpoint,
        request: Request[Any, Any, Any],
        holder: Holder | None,
        request_id: str,
    ) -> None:
        self.services, self.endpoint, self.request, self.holder = services, endpoint, request, holder
        self.request_id = request_id
        self.body = b""
        self._connection: Connection | None = None

    @property
    def connection(self) -> Connection:
        """The transaction of this request's site; not for routes with `own_transaction`."""
        if self._connection is None:
            raise RuntimeError(f"{self.endpoint.path} has own_transaction: it opens what it needs")
        return self._connection

    @connection.setter
    def connection(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def is_operator(self) -> bool:
        """Whether an operator's key asks."""
        return self.holder is not None and self.holder.site_id is None

    @property
    def site_id(self) -> int:
        """The site whose key asks.

        Raises:
            Forbidden: an operator's does, who has none.
        """
        if self.holder is None or self.holder.site_id is None:
            raise Forbidden("this needs a key of a site, not an operator's")
        return self.holder.site_id

    def id(self, prefix: Prefix, name: str = "id") -> int:
        """Return the number of the id in the path.

        Raises:
            NotFound: it is no id of this kind, so there is no such thing.
        """
        try:
            return decode(prefix, self.request.path_params[name])
        except Invalid:
            raise NotFound(f"no such id; it would begin with {prefix}_") from None

    def query(self, name: str) -> str | None:
        """Return a parameter of the query, or None.

        Raises:
            Invalid: it has a NUL, for which Postgres has no place.
        """
        text = self.request.query_params.get(name)
        if text is not None and "\0" in text:
            raise Invalid([("", f"{name}: a NUL character (U+0000)")])
        return text

    def limit(self) -> int:
        """Return the page's size.

        Raises:
            Invalid: no number from 1 to 1,000.
        """
        text = self.query("limit")
        if text is None:
            return PAGE_DEFAULT
        if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= PAGE_LIMIT:
            raise Invalid([("", f"limit: expected a number from 1 to {PAGE_LIMIT}")])
        return int(text)

    def after(self, prefix: Prefix) -> int:
        """Return the number after which the page begins.

        Raises:
            Invalid: `after` is no id of this kind.
        """
        found = self.query_id(prefix, "after") if self.query("after") else None
        return found or 0

    def query_id(self, prefix: Prefix, name: str) -> int | None:
        """Return the number of an id in the query, or None.

        Raises:
            Invalid: it is no id of this kind.
        """
        text = self.query(name)
        if text is None:
            return None
        try:
            return decode(prefix, text)
        except Invalid as error:
            raise Invalid([("", f"{name}: {detail}") for _, detail in error.errors]) from None


class Routes:
    """The routes of one resource, in order."""

    def __init__(self, group: str) -> None:
        self.group = group
        self._endpoints: list[Endpoint] = []

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._endpoints)

    def add(
        self,
        method: Method,
        path: str,
        *,
        answer: Any,
        body: Any = None,
        status: int = 200,
        access: Access = Access.SITE,
        scopes: set[str] | None = None,
        campaigns: bool = False,
        own_transaction: bool = False,
        query: Mapping[str, str | Described] | None = None,
        media_type: str = "application/json",
        consumes: str = "",
        keep: Callable[[Any], Any] | None = None,
        then: Callable[[Call, Any], Awaitable[None]] | None = None,
        rules: Mapping[str, Any] | None = None,
        uploads: Mapping[str, Any] | None = None,
        problems: set[str] | None = None,
        statuses: Mapping[int, str] | None = None,
        reads: Mapping[str, str] | None = None,
        gives: Mapping[str, str] | None = None,
    ) -> Callable[[_Handler], _Handler]:
        """Add a route; the first line of the handler's docstring is its summary.

        Args:
            method: of HTTP.
            path: with `{name}` for parts that are ids.
            answer: type of what the handler gives; None for an empty answer.
            body: type of the JSON body, given to the handler as `data`.
            status: when all goes well.
            access: whose keys.
            scopes: any of these, for a site's key; none: every key.
            campaigns: whether the site must have campaigns switched on.
            own_transaction: see `Endpoint`.
            query: parameters of the query beside `limit` and `after`, each with what it means.
            media_type: of the answer.
            consumes: content type of a body that is not JSON; the handler finds it in `call.body`.
            keep: see `Endpoint`.
            then: runs after the commit, with the answer.
            rules: see `Endpoint`; so with what follows.
            uploads: content type → schema of the body.
            problems: types of problems, as in `api/errors`.
            statuses: status → what it means.
            reads: headers of the request → what they mean.
            gives: headers of the answer → what they say.
        """

        def register(handler: _Handler) -> _Handler:
            self._endpoints.append(
                Endpoint(
                    method=method,
                    path=path,
                    group=self.group,
                    summary=(handler.__doc__ or "").strip().split("\n")[0],
                    handler=handler,
                    body=body,
                    answer=answer,
                    status=status,
                    access=access,
                    scopes=frozenset(scopes or ()),
                    campaigns=campaigns,
                    own_transaction=own_transaction,
                    query=query or {},
                    media_type=media_type,
                    consumes=consumes,
                    keep=keep,
                    then=then,
                    rules=rules or {},
                    uploads=uploads or {},
                    problems=frozenset(problems or ()),
                    statuses=statuses or {},
                    reads=reads or {},
                    gives=gives or {},
                )
            )
            return handler

        return register
