"""The control API as an application, and as a server that stops when it is told to.

Owns what is not a resource: which routes there are, and uvicorn. Must not know what they do. Litestar finds the route,
`api/serving` does the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import Generator, Sequence
from typing import Any, Final, cast

import msgspec
import uvicorn
from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from gateway.api import (
    broadcast_progress,
    broadcasts,
    contacts,
    domains,
    errors,
    health,
    imports,
    keys,
    lanes,
    lists,
    messages,
    openapi,
    privacy,
    returns,
    sites,
    status,
    suppressions,
    template_actions,
    templates,
)
from gateway.api.endpoint import Endpoint
from gateway.api.services import Services, open_services
from gateway.api.serving import Handler, new_request_id
from gateway.config import Config
from gateway.errors import Invalid, NotFound
from gateway.telemetry import Metrics
from gateway.throttle.retune import Follow, never
from gateway.throttle.shaping import Shaping

RESOURCES: Final = (
    health, openapi, sites, keys, domains, contacts, lists, imports, templates, template_actions, messages, status, broadcasts,
    broadcast_progress, suppressions, privacy, lanes, returns,
)  # fmt: skip
_GRACE_S: Final = 10
_BACKLOG: Final = 2_048


def endpoints() -> Sequence[Endpoint]:
    """Every route that there is."""
    return [endpoint for resource in RESOURCES for endpoint in resource.routes]


def create_app(services: Services) -> Litestar:
    """Make the application."""
    openapi.publish(endpoints())
    return Litestar(
        route_handlers=_handlers(services),
        exception_handlers={HTTPException: cast(Any, _refuse)},
        openapi_config=None,
        request_max_body_size=None,  # each route has its own limit
        logging_config=None,
    )


async def serve_api(
    config: Config,
    dsn: str,
    *,
    shaping: Shaping,
    stop: asyncio.Event,
    metrics: Metrics | None = None,
    follow: Follow = never,
) -> None:
    """Serve until `stop` is set; then finish what was begun, within 10 seconds. `follow` tells of changed configuration.

    Raises:
        StoreUnavailable: Postgres did not answer at the start.
        ConfigError: the envelope key cannot be read or made.
        OSError: the address is taken, or is none of this machine's.
    """
    listening = _listen(config)
    with listening:
        async with open_services(config, dsn, shaping=shaping, metrics=metrics) as services:
            follow(services.retune)
            server = _Server(
                uvicorn.Config(
                    create_app(services),
                    loop="none",
                    http="httptools",
                    ws="none",
                    lifespan="off",
                    log_config=None,
                    access_log=False,
                    server_header=False,
                    date_header=False,
                    timeout_graceful_shutdown=_GRACE_S,
                )
            )
            serving = asyncio.create_task(server.serve([listening]), name="api")
            stopping = asyncio.create_task(stop.wait(), name="api stop")
            # What stands now stays for good: collecting it again and again took p99 from 4 to 27 ms.
            gc.collect()
            gc.freeze()
            try:
                await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopping.cancel()
                services.stopping.set()
                server.should_exit = True
                await serving


class _Server(uvicorn.Server):
    """Signals are the composition root's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def _handlers(services: Services) -> list[HTTPRouteHandler]:
    """One for each path: of several, Litestar's answer to OPTIONS would name the methods of one."""
    by_path: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints():
        by_path.setdefault(endpoint.path, []).append(endpoint)
    return [_route(path, there, services) for path, there in by_path.items()]


def _route(path: str, there: Sequence[Endpoint], services: Services) -> HTTPRouteHandler:
    handlers = {str(endpoint.method): Handler(endpoint, services) for endpoint in there}

    async def serve(request: Request[Any, Any, Any]) -> ASGIResponse:
        return await handlers[request.method](request)

    # The status is the answer's own; Litestar wants one that may have a body.
    return HTTPRouteHandler(
        path.replace("}", ":str}"), http_method=[endpoint.method for endpoint in there], status_code=200
    )(serve)


def _refuse(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What Litestar refuses before a route is found: an unknown path, a method that the path does not have."""
    request_id = new_request_id()
    if error.status_code == 405:
        detail = f"{request.method} is not possible at this path"
        body = errors.ProblemBody(errors.BUG_TYPE, "Method Not Allowed", 405, detail, request_id)
    elif error.status_code == 404:
        detail = "there is nothing at this path; the routes begin with /v1/, and /openapi.json names them all"
        body = errors.describe(NotFound(detail), request_id)
    else:
        body = errors.describe(Invalid([("", error.detail)]), request_id)
    return Response(
        msgspec.json.encode(body),
        status_code=body.status,
        media_type=errors.PROBLEM_JSON,
        headers={"cache-control": "no-store", "x-request-id": request_id, **_allowed(error)},
    )


def _allowed(error: HTTPException) -> dict[str, str]:
    """The methods that a path has, which RFC 9110 §15.5.6 wants to be told with a 405."""
    allow = (error.headers or {}).get("allow")
    return {"allow": allow} if allow else {}


def _listen(config: Config) -> socket.socket:
    """Bind ourselves: uvicorn ends the process when it cannot."""
    host, port = config.api.host, config.api.port
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
        )
    except OSError as error:
        raise OSError(error.errno, f"the API cannot listen on {host}:{port}: {error.strerror}") from error
