"""`/v1/templates` as calls. Pure."""

from __future__ import annotations

from gateway.client.bodies import NewTemplate
from gateway.client.call import PAGE_SIZE, Call, Page, Pages, at, body_of
from gateway.client.results import Template


def create(template: NewTemplate, *, idempotency_key: str = "") -> Call[Template]:
    """Make a template."""
    return Call("POST", "/v1/templates", Template, body=body_of(template), idempotency_key=idempotency_key)


def get(template: str) -> Call[Template]:
    """Show a template."""
    return Call("GET", at("/v1/templates/{}", template), Template)


def find(*, page_size: int = PAGE_SIZE) -> Pages[Template]:
    """All templates."""
    return Pages("/v1/templates", Page[Template], page_size=page_size)


def change(template: str, content: NewTemplate) -> Call[Template]:
    """Give a template new content, as a new version; what was accepted keeps its own."""
    return Call("PUT", at("/v1/templates/{}", template), Template, body=body_of(content))
