"""The control API for tests: the real application over an in-process transport, and a site that may send."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from gateway.api.server import create_app
from gateway.api.services import Services, open_services
from gateway.clock import SystemClock
from gateway.config import Config, DatabaseConfig
from gateway.store import domains, sites
from gateway.store.lane_map import LaneMap
from gateway.store.tenancy import OPERATOR, as_site
from gateway.store.waker import Waker
from gateway.throttle.shaping import Shaping

SCOPES = ("send", "read", "contacts", "campaigns", "admin")


class Client:
    """Somebody with a key."""

    def __init__(self, http: httpx.AsyncClient, key: str | None, *, site_id: int = 0) -> None:
        self.http, self.key, self.site_id = http, key, site_id

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        expect: int | None = None,
        **options: Any,
    ) -> httpx.Response:
        """One request; `body` as JSON, `key` as Idempotency-Key, `expect` the status that it must have."""
        headers: dict[str, str] = dict(options.pop("headers", {}))
        if self.key is not None:
            headers["authorization"] = f"Bearer {self.key}"
        if key is not None:
            headers["idempotency-key"] = key
        if body is not None:
            options["content"] = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = await self.http.request(method, path, headers=headers, **options)
        if expect is not None:
            assert response.status_code == expect, f"{method} {path}: {response.status_code} {response.text}"
        return response

    async def get(self, path: str, **options: Any) -> Any:
        """GET that must succeed, decoded."""
        return (await self.call("GET", path, expect=200, **options)).json()

    async def post(self, path: str, body: Any = None, **options: Any) -> Any:
        """POST that must succeed, decoded."""
        response = await self.call("POST", path, body, **options)
        assert response.is_success, f"POST {path}: {response.status_code} {response.text}"
        return response.json() if response.content else None


class World(msgspec.Struct):
    """An application, an operator, and a way to more sites."""

    services: Services
    http: httpx.AsyncClient
    operator: Client
    public: Client

    async def site(
        self,
        name: str = "Acme",
        *,
        campaigns: bool = True,
        domain: str | None = None,
        scopes: tuple[str, ...] = SCOPES,
    ) -> Client:
        """A site with a key; `domain` becomes a verified domain of it, without waiting for a real RSA key."""
        async with as_site(self.services.pool, OPERATOR) as connection:
            site = await sites.create_site(connection, name, "UTC", campaigns=campaigns)
            _, key = await sites.issue_key(connection, site.id, "test", list(scopes))
            if domain is not None:
                made = await domains.create_domain(
                    connection,
                    site.id,
                    domain,
                    selector="s1",
                    private_key_sealed=b"sealed",
                    public_key="v=DKIM1; p=",
                )
                await domains.mark_verified(connection, made.id)
        return Client(self.http, key, site_id=site.id)


@asynccontextmanager
async def open_world(dsn: str, folder: Path, **config: Any) -> AsyncIterator[World]:
    """The application on a database; `folder` takes the envelope key."""
    settings = Config(**{"database": DatabaseConfig(dsn=dsn, data_dir=str(folder))} | config)
    async with open_services(settings, dsn, shaping=Shaping()) as services:
        app = create_app(services)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            async with as_site(services.pool, OPERATOR) as connection:
                _, key = await sites.issue_key(connection, None, "operator", ["admin"])
            yield World(services, http, Client(http, key), Client(http, None))


CSV = b"email,first_name,company\nada@one.example,Ada,Engines\nbob@two.example,Bob,Bridges\n"


async def import_list(client: Client, content: bytes = CSV, name: str = "people") -> Mapping[str, Any]:
    """Import contacts into a list; the import's record."""
    return await client.post(f"/v1/imports?list={name}", content, headers={"content-type": "text/csv"})


async def make_broadcast(client: Client, domain: str, content: bytes = CSV) -> Mapping[str, Any]:
    """A draft to a freshly imported list."""
    record = await import_list(client, content)
    template = await client.post(
        "/v1/templates",
        {
            "name": f"hello {record['id']}",
            "subject": "Hello {{ first_name }}",
            "text": "Dear {{ first_name }}",
        },
    )
    return await client.post(
        "/v1/broadcasts",
        {"name": "news", "list": record["list"], "template": template["id"], "from": f"News <news@{domain}>"},
    )


def scheduler_parts(services: Services) -> tuple[LaneMap, Waker]:
    """What a scheduler shares with the API in a test."""
    return LaneMap(services.pool, Shaping().for_domain, SystemClock()), services.waker
