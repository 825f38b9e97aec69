"""`/v1/keys`: API keys of a site, made and revoked by its own admin or by an operator.

A key's text is in the answer that makes it and nowhere else: the answer that is stored for a repeated Idempotency-Key has it
blanked out.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.api.described import Described, SiteId, id_schema
from gateway.api.endpoint import Access, Call, Routes
from gateway.api.page import Page, page
from gateway.errors import Conflict, Invalid
from gateway.model.ids import Prefix, decode, encode
from gateway.store import sites
from gateway.store.sites import Key

routes = Routes("keys")

Scope = Literal["send", "read", "contacts", "campaigns", "admin"]


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key to make."""

    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=5)]
    name: Annotated[str, Meta(max_length=200)] = ""
    site: SiteId | UnsetType = UNSET
    """Whose; operators have to say it, a site's own key need not."""


class KeyView(msgspec.Struct, frozen=True):
    """A key without its text."""

    id: str
    site: str | None
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


class CreatedKey(msgspec.Struct, frozen=True):
    """A key just made. `key` is its text, shown this once; empty when the answer is a repeated one."""

    id: str
    site: str | None
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_at: datetime
    key: str


def _without_text(created: CreatedKey) -> CreatedKey:
    return msgspec.structs.replace(created, key="")


@routes.add(
    "POST", "/v1/keys", body=NewKey, answer=CreatedKey, status=201, access=Access.BOTH, scopes={"admin"}, keep=_without_text,
    problems={"not_found"},
)  # fmt: skip
async def create_key(call: Call, data: NewKey) -> CreatedKey:
    """Make a key; its text is shown this once."""
    site_id = _site(call, None if data.site is UNSET else data.site, "/site")
    await sites.get_site(call.connection, site_id)
    return _created(*await sites.issue_key(call.connection, site_id, data.name, sorted(set(data.scopes))))


@routes.add(
    "GET", "/v1/keys", answer=Page[KeyView], access=Access.BOTH, scopes={"admin"},
    query={"site": Described("whose keys; operators have to say it", id_schema(Prefix.SITE))},
)  # fmt: skip
async def list_keys(call: Call) -> Page[KeyView]:
    """List the keys of a site, the revoked too."""
    limit = call.limit()
    site_id = _site(call, call.query("site"), "")
    rows = await sites.list_keys(call.connection, site_id, call.after(Prefix.KEY), limit + 1)
    return page(rows, limit, _view, lambda key: encode(Prefix.KEY, key.id))


async def _forget(call: Call, _: KeyView) -> None:
    call.services.auth.forget()


@routes.add(
    "POST", "/v1/keys/{id}/actions/revoke", answer=KeyView, access=Access.BOTH, scopes={"admin"}, then=_forget
)  # fmt: skip
async def revoke_key(call: Call) -> KeyView:
    """End a key, within 2 seconds everywhere."""
    return _view(await sites.revoke_key(call.connection, call.id(Prefix.KEY)))


@routes.add(
    "POST", "/v1/keys/{id}/actions/rotate", answer=CreatedKey, status=201, access=Access.BOTH, scopes={"admin"}, keep=_without_text,
    problems={"conflict"},
)  # fmt: skip
async def rotate_api_key(call: Call) -> CreatedKey:
    """Make a key in the place of another, with its site, name and scopes; the other opens until it is revoked, when all use the new one."""
    old = await sites.get_key(call.connection, call.id(Prefix.KEY))
    if old.revoked_at is not None:
        raise Conflict("this key is revoked; make a new one with POST /v1/keys")
    return _created(*await sites.issue_key(call.connection, old.site_id, old.name, old.scopes))


def _created(key: Key, text: str) -> CreatedKey:
    view = _view(key)
    return CreatedKey(view.id, view.site, view.name, view.prefix, view.scopes, view.created_at, text)


def _site(call: Call, given: str | None, pointer: str) -> int:
    if not call.is_operator:
        if given is not None and given != encode(Prefix.SITE, call.site_id):
            raise Invalid([(pointer, "a site's key makes and sees keys of its own site only")])
        return call.site_id
    if given is None:
        raise Invalid([(pointer, "site: required with an operator's key")])
    return decode(Prefix.SITE, given, pointer)


def _view(key: Key) -> KeyView:
    return KeyView(
        id=encode(Prefix.KEY, key.id),
        site=None if key.site_id is None else encode(Prefix.SITE, key.site_id),
        name=key.name,
        prefix=f"gw_{key.prefix}",
        scopes=key.scopes,
        created_at=key.created_at,
        last_used_at=key.last_used_at,
        revoked_at=key.revoked_at,
    )
