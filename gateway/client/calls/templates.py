"""`/v1/templates` as calls. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.client.bodies import Mailbox, NewTemplate
from gateway.client.bodies import Stream as Kind
from gateway.client.call import PAGE_SIZE, Call, Page, Pages, at, body_of, given
from gateway.client.results import Accepted, Rendered, Template


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


def render(
    template: str, *, contact: str | None = None, variables: Mapping[str, Any] | None = None, idempotency_key: str = ""
) -> Call[Rendered]:  # fmt: skip
    """Render it as a contact would get it, less tracking; variables win over what is known of the contact."""
    body = body_of(given({"contact": contact, "variables": variables}))
    return Call(
        "POST", at("/v1/templates/{}/actions/render", template), Rendered, body=body, idempotency_key=idempotency_key
    )  # fmt: skip


def send_test(
    template: str,
    to: str,
    *,
    sender: str | Mailbox,
    contact: str | None = None,
    variables: Mapping[str, Any] | None = None,
    stream: Kind = "marketing",
    idempotency_key: str = "",
) -> Call[Accepted]:
    """Send it to one address."""
    said = {"from": sender, "to": to, "contact": contact, "variables": variables, "stream": stream}
    return Call(
        "POST", at("/v1/templates/{}/actions/test", template), Accepted, body=body_of(given(said)), idempotency_key=idempotency_key
    )  # fmt: skip
