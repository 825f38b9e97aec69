"""Templates of a site.

Owns the rows; a change makes a new version, and what was sent keeps the content it was accepted with. Must not know Liquid.
Functions work in the caller's transaction (`store/tenancy.as_site`).
"""

from __future__ import annotations

from datetime import datetime

import asyncpg
import msgspec

from gateway.errors import Conflict, NotFound
from gateway.store.catalogue import load
from gateway.store.pool import Connection

_SQL = load("templates")
_CREATE_TEMPLATE = _SQL.create_template
_TEMPLATES = _SQL.templates
_TEMPLATE = _SQL.template
_CHANGE_TEMPLATE = _SQL.change_template
_TAKEN = "there is a template with this name already"


class Content(msgspec.Struct, frozen=True):
    """What a template says."""

    name: str
    subject: str
    html: str
    text: str


class Template(msgspec.Struct, frozen=True):
    """One template in its present version."""

    id: int
    name: str
    version: int
    subject: str
    html: str
    text: str
    created_at: datetime
    updated_at: datetime


async def create_template(connection: Connection, site_id: int, content: Content) -> Template:
    """Make a template.

    Raises:
        Conflict: the site has one with this name.
    """
    try:
        row = await connection.fetchrow(
            _CREATE_TEMPLATE, site_id, content.name, content.subject, content.html, content.text
        )
    except asyncpg.UniqueViolationError as error:
        raise Conflict(_TAKEN) from error
    assert row is not None
    return Template(*row)


async def change_template(connection: Connection, template_id: int, content: Content) -> Template:
    """Give a template new content, as a new version.

    Raises:
        NotFound: there is none that the transaction may see.
        Conflict: the site has another one with this name.
    """
    try:
        row = await connection.fetchrow(
            _CHANGE_TEMPLATE, template_id, content.name, content.subject, content.html, content.text
        )
    except asyncpg.UniqueViolationError as error:
        raise Conflict(_TAKEN) from error
    if row is None:
        raise NotFound("no such template")
    return Template(*row)


async def list_templates(connection: Connection, site_id: int, after: int, limit: int) -> list[Template]:
    """Up to `limit` templates of a site with ids above `after`."""
    return [Template(*row) for row in await connection.fetch(_TEMPLATES, site_id, after, limit)]


async def get_template(connection: Connection, template_id: int) -> Template:
    """One template.

    Raises:
        NotFound: there is none that the transaction may see.
    """
    row = await connection.fetchrow(_TEMPLATE, template_id)
    if row is None:
        raise NotFound("no such template")
    return Template(*row)
