"""`/healthz`, `/readyz`, `/metrics`: for machines that watch; no key."""

from __future__ import annotations

import msgspec
from prometheus_client import generate_latest

from gateway.api.endpoint import Access, Call, Routes
from gateway.api.services import ROLE
from gateway.api.serving import Reply
from gateway.errors import Unavailable
from gateway.store.tenancy import role_of

routes = Routes("health")


class Health(msgspec.Struct, frozen=True):
    """All is well."""

    status: str = "ok"


@routes.add("GET", "/healthz", answer=Health, access=Access.PUBLIC, own_transaction=True)
async def healthz(_: Call) -> Health:
    """Say whether this process lives."""
    return Health()


@routes.add("GET", "/readyz", answer=Health, access=Access.PUBLIC, own_transaction=True)
async def readyz(call: Call) -> Health:
    """Say whether requests can be served: the database answers, to the right role."""
    role = await role_of(call.services.pool)
    if role != ROLE:
        raise Unavailable(5.0, f"the database takes us for {role} instead of {ROLE}")
    return Health()


@routes.add(
    "GET", "/metrics", answer=str, access=Access.PUBLIC, own_transaction=True, media_type="text/plain; version=0.0.4"
)  # fmt: skip
async def metrics(call: Call) -> Reply:
    """Give the metrics of this process to Prometheus."""
    return Reply(generate_latest(call.services.metrics.registry))
