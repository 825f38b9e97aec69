"""`Client`: the control API for code that waits.

Owns the connections (httpx) and the waiting; what is asked is in `client/calls`, what is asked again in `client/exchange`.

    with Client("https://gateway.example", "gw_…") as client:
        accepted = client.messages.send(NewMessage(sender="hello@acme.example", to="ada@example.org", subject="Hi", text="Hi"))
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from secrets import SystemRandom
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

import httpx

from gateway.client.call import Call, Pages, Stream
from gateway.client.calls import (
    broadcasts,
    contacts,
    domains,
    imports,
    keys,
    lanes,
    lists,
    messages,
    privacy,
    sites,
    suppressions,
    templates,
)
from gateway.client.exchange import ALWAYS, Answer, Ask, Outcome, Retry, Trouble, exchange
from gateway.client.following import FollowOutcome, More, Open, Opened, Tell, follow
from gateway.client.wire import (
    TIMEOUT_S,
    answer_of,
    base_of,
    headers_of,
    is_lasting,
    is_stream,
    new_key,
    request_of,
    stream_request_of,
)

P = ParamSpec("P")
T = TypeVar("T")


class _Caller:
    """Makes calls. `one`, `each` and `stream` turn a function that describes a call into one that makes it, with the same parameters."""

    def __init__(
        self, base_url: str, key: str, retry: Retry, timeout_s: float, transport: httpx.BaseTransport | None
    ) -> None:
        self.http = httpx.Client(
            base_url=base_of(base_url), headers=headers_of(key), timeout=timeout_s, transport=transport
        )
        self._retry, self._dice = retry, SystemRandom()

    def one(self, describe: Callable[P, Call[T]]) -> Callable[P, T]:
        def make(*args: P.args, **kwargs: P.kwargs) -> T:
            return self._run(describe(*args, **kwargs))

        make.__doc__ = describe.__doc__
        return make

    def each(self, describe: Callable[P, Pages[T]]) -> Callable[P, Iterator[T]]:
        def make(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
            return self._items(describe(*args, **kwargs))

        make.__doc__ = describe.__doc__
        return make

    def stream(self, describe: Callable[P, Stream[T]]) -> Callable[P, Iterator[T]]:
        def make(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
            return self._follow(describe(*args, **kwargs))

        make.__doc__ = describe.__doc__
        return make

    def _items(self, pages: Pages[T]) -> Iterator[T]:
        after: str | None = None
        while True:
            page = self._run(pages.page(after))
            yield from page.data
            if not page.has_more or page.next is None:
                return
            after = page.next

    def _follow(self, stream: Stream[T]) -> Iterator[T]:
        steps = follow(stream, self._retry, self._dice)
        outcome: FollowOutcome = None
        pieces: Iterator[bytes] = iter(())
        with ExitStack() as opened:
            while True:
                try:
                    step = steps.send(outcome)
                except StopIteration:
                    return
                outcome = None
                if isinstance(step, Tell):
                    yield step.item
                elif isinstance(step, More):
                    try:
                        outcome = next(pieces, b"")
                    except httpx.RequestError as error:
                        outcome = Trouble(error, is_lasting(error))
                elif isinstance(step, Open):
                    opened.close()
                    try:
                        request = stream_request_of(self.http, stream.path, step.headers)
                        response = self.http.send(request, stream=True)
                        opened.callback(response.close)
                        if is_stream(response):
                            outcome, pieces = Opened(), response.iter_bytes()
                        else:
                            response.read()
                            outcome = answer_of(response)
                    except httpx.RequestError as error:
                        outcome = Trouble(error, is_lasting(error))
                else:
                    opened.close()
                    time.sleep(step.seconds)

    def _run(self, call: Call[T]) -> T:
        steps = exchange(call, new_key(), self._retry, self._dice)
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return end.value
            if isinstance(step, Ask):
                outcome = self._ask(call, step)
            else:
                time.sleep(step.seconds)
                outcome = None

    def _ask(self, call: Call[T], ask: Ask) -> Answer | Trouble:
        with ExitStack() as files:
            content = call.body
            body = content if isinstance(content, bytes) else files.enter_context(content.open("rb"))
            request = request_of(self.http, call, ask.headers, body)
            try:
                return answer_of(self.http.send(request))
            except httpx.RequestError as error:
                return Trouble(error, is_lasting(error))


class _Messages:
    """`/v1/messages`."""

    def __init__(self, caller: _Caller) -> None:
        self.send = caller.one(messages.send)
        self.send_many = caller.one(messages.send_many)
        self.get = caller.one(messages.get)
        self.find = caller.each(messages.find)
        self.why = caller.each(messages.why)
        self.cancel = caller.one(messages.cancel)
        self.hold = caller.one(messages.hold)
        self.release = caller.one(messages.release)


class _Broadcasts:
    """`/v1/broadcasts`."""

    def __init__(self, caller: _Caller) -> None:
        self.create = caller.one(broadcasts.create)
        self.change = caller.one(broadcasts.change)
        self.get = caller.one(broadcasts.get)
        self.find = caller.each(broadcasts.find)
        self.delete = caller.one(broadcasts.delete)
        self.estimate = caller.one(broadcasts.estimate)
        self.send_test = caller.one(broadcasts.send_test)
        self.send = caller.one(broadcasts.send)
        self.schedule = caller.one(broadcasts.schedule)
        self.pause = caller.one(broadcasts.pause)
        self.resume = caller.one(broadcasts.resume)
        self.cancel = caller.one(broadcasts.cancel)
        self.stats = caller.one(broadcasts.stats)
        self.deliveries = caller.each(broadcasts.deliveries)
        self.follow = caller.stream(broadcasts.follow)


class _Contacts:
    """`/v1/contacts`."""

    def __init__(self, caller: _Caller) -> None:
        self.create = caller.one(contacts.create)
        self.change = caller.one(contacts.change)
        self.get = caller.one(contacts.get)
        self.find = caller.each(contacts.find)
        self.delete = caller.one(contacts.delete)


class _Lists:
    """`/v1/lists`."""

    def __init__(self, caller: _Caller) -> None:
        self.create = caller.one(lists.create)
        self.rename = caller.one(lists.rename)
        self.get = caller.one(lists.get)
        self.find = caller.each(lists.find)
        self.delete = caller.one(lists.delete)
        self.members = caller.each(lists.members)
        self.add = caller.one(lists.add)
        self.add_many = caller.one(lists.add_many)
        self.remove = caller.one(lists.remove)


class _Templates:
    """`/v1/templates`."""

    def __init__(self, caller: _Caller) -> None:
        self.create = caller.one(templates.create)
        self.get = caller.one(templates.get)
        self.find = caller.each(templates.find)
        self.change = caller.one(templates.change)
        self.render = caller.one(templates.render)
        self.send_test = caller.one(templates.send_test)


class _Suppressions:
    """`/v1/suppressions`."""

    def __init__(self, caller: _Caller) -> None:
        self.add = caller.one(suppressions.add)
        self.find = caller.each(suppressions.find)
        self.remove = caller.one(suppressions.remove)
        self.add_file = caller.one(suppressions.add_file)
        self.export = caller.one(suppressions.export)


class _Privacy:
    """`/v1/erasures`, and what is kept of a contact."""

    def __init__(self, caller: _Caller) -> None:
        self.export_contact = caller.one(privacy.export_contact)
        self.sent = caller.each(privacy.sent)
        self.erase_contact = caller.one(privacy.erase_contact)
        self.erase_address = caller.one(privacy.erase_address)
        self.erase_message = caller.one(privacy.erase_message)
        self.get = caller.one(privacy.get)
        self.find = caller.each(privacy.find)


class _Imports:
    """`/v1/imports`."""

    def __init__(self, caller: _Caller) -> None:
        self.create = caller.one(imports.create)
        self.get = caller.one(imports.get)
        self.find = caller.each(imports.find)
        self.errors = caller.each(imports.errors)
        self.template = caller.one(imports.template)


class _Domains:
    """`/v1/domains`."""

    def __init__(self, caller: _Caller) -> None:
        self.create = caller.one(domains.create)
        self.get = caller.one(domains.get)
        self.find = caller.each(domains.find)
        self.rotate = caller.one(domains.rotate)
        self.mark_verified = caller.one(domains.mark_verified)


class _Keys:
    """`/v1/keys`."""

    def __init__(self, caller: _Caller) -> None:
        self.create = caller.one(keys.create)
        self.find = caller.each(keys.find)
        self.rotate = caller.one(keys.rotate)
        self.revoke = caller.one(keys.revoke)


class _Sites:
    """`/v1/sites`."""

    def __init__(self, caller: _Caller) -> None:
        self.create = caller.one(sites.create)
        self.get = caller.one(sites.get)
        self.find = caller.each(sites.find)
        self.change = caller.one(sites.change)
        self.hold = caller.one(sites.hold)
        self.release = caller.one(sites.release)


class _Lanes:
    """`/v1/lanes`."""

    def __init__(self, caller: _Caller) -> None:
        self.find = caller.each(lanes.find)
        self.get = caller.one(lanes.get)
        self.limit = caller.one(lanes.limit)
        self.unlimit = caller.one(lanes.unlimit)
        self.suspend = caller.one(lanes.suspend)
        self.drain = caller.one(lanes.drain)
        self.resume = caller.one(lanes.resume)


class Client:
    """The control API with one key. May be used by many threads; close it, or use it in a `with`."""

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        retry: Retry = ALWAYS,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Take where the gateway is (`https://gateway.example`) and an API key; nothing is sent yet.

        Args:
            base_url: the gateway's root, without `/v1`.
            key: an API key of the site.
            retry: when a call is repeated; `NEVER` for not at all.
            timeout_s: how long an answer may take, and each step of connecting.
            transport: instead of the network, for an app's tests.

        Raises:
            ValueError: that is no URL of HTTP, or no key.
        """
        self._caller = caller = _Caller(base_url, key, retry, timeout_s, transport)
        self.messages = _Messages(caller)
        self.broadcasts = _Broadcasts(caller)
        self.contacts = _Contacts(caller)
        self.lists = _Lists(caller)
        self.templates = _Templates(caller)
        self.suppressions = _Suppressions(caller)
        self.privacy = _Privacy(caller)
        self.imports = _Imports(caller)
        self.domains = _Domains(caller)
        self.keys = _Keys(caller)
        self.sites = _Sites(caller)
        self.lanes = _Lanes(caller)

    def close(self) -> None:
        """Close its connections."""
        self._caller.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
