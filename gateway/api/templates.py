"""`/v1/templates`: content to send again and again. A change makes a new version; what was accepted keeps its own."""

from __future__ import annotations

import functools
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from gateway.api.endpoint import Call, Routes
from gateway.api.page import Page, page
from gateway.campaigns.render import compile_template
from gateway.errors import Invalid, TemplateError
from gateway.model.ids import Prefix, encode
from gateway.mta.header import check_value
from gateway.store import templates
from gateway.store.templates import Content, Template

routes = Routes("templates")

Subject = Annotated[str, Meta(min_length=1, max_length=2_000)]
Body = Annotated[str, Meta(max_length=1_000_000)]
_CONTENT: Final = {
    "anyOf": [{"required": [part], "properties": {part: {"minLength": 1}}} for part in ("html", "text")]
}
"""At least one of the two bodies."""


class NewTemplate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A template's content, with Liquid tags; at least one of the two bodies."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    subject: Subject
    html: Body = ""
    text: Body = ""


class TemplateView(msgspec.Struct, frozen=True):
    """A template in its present version."""

    id: str
    name: str
    version: int
    subject: str
    html: str
    text: str
    created_at: datetime
    updated_at: datetime


@routes.add(
    "POST",
    "/v1/templates",
    body=NewTemplate,
    answer=TemplateView,
    status=201,
    scopes={"campaigns"},
    rules=_CONTENT,
    problems={"conflict"},
)
async def create_template(call: Call, data: NewTemplate) -> TemplateView:
    """Make a template."""
    return _view(await templates.create_template(call.connection, call.site_id, _content(data)))


@routes.add("GET", "/v1/templates", answer=Page[TemplateView], scopes={"read"})
async def list_templates(call: Call) -> Page[TemplateView]:
    """List the templates."""
    limit = call.limit()
    rows = await templates.list_templates(
        call.connection, call.site_id, call.after(Prefix.TEMPLATE), limit + 1
    )
    return page(rows, limit, _view, lambda template: encode(Prefix.TEMPLATE, template.id))


@routes.add("GET", "/v1/templates/{id}", answer=TemplateView, scopes={"read"})
async def get_template(call: Call) -> TemplateView:
    """Show a template."""
    return _view(await templates.get_template(call.connection, call.id(Prefix.TEMPLATE)))


@routes.add(
    "PUT",
    "/v1/templates/{id}",
    body=NewTemplate,
    answer=TemplateView,
    scopes={"campaigns"},
    rules=_CONTENT,
    problems={"conflict"},
)
async def change_template(call: Call, data: NewTemplate) -> TemplateView:
    """Give a template new content, as a new version."""
    changed = await templates.change_template(call.connection, call.id(Prefix.TEMPLATE), _content(data))
    return _view(changed)


def check_content(subject: str, html: str, text: str, *, liquid: bool = True) -> None:
    """Check that content can be rendered and sent.

    Raises:
        Invalid: controls in the subject, no body at all, or Liquid that does not compile; says in which part.
    """
    check_value(subject, "/subject")
    if not html and not text:
        raise Invalid([("/html", "expected html or text, or both")])
    if liquid and ("{" in subject or "{" in html or "{" in text):
        _compile(subject, html, text)


@functools.lru_cache(maxsize=64)
def _compile(subject: str, html: str, text: str) -> None:
    """Apps send the same content again and again, and compiling it took a tenth of a small request's time."""
    try:
        compile_template(subject, html, text)
    except TemplateError as error:
        raise Invalid([(f"/{error.part}", str(error))]) from error


def _content(data: NewTemplate) -> Content:
    check_content(data.subject, data.html, data.text)
    return Content(data.name, data.subject, data.html, data.text)


def _view(template: Template) -> TemplateView:
    return TemplateView(
        encode(Prefix.TEMPLATE, template.id),
        template.name,
        template.version,
        template.subject,
        template.html,
        template.text,
        template.created_at,
        template.updated_at,
    )
