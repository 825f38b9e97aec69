"""What recipients come back to: `/u/` unsubscribe (RFC 8058), `/c/` a tracked link, `/o/` the pixel. No key: the token is the proof.

Owns these three answers. Must not know how tokens are made (`campaigns/tracking`, `campaigns/unsubscribe`). A GET writes nothing: scanners
fetch every link. An unsubscription acts at once, with no cookie and no redirect, and holds for all marketing of the site.

What we made keeps its answer when those whom it speaks of are gone: who unsubscribes from a site that was deleted is told so and gets no
more mail, which is true, and a mailbox provider that clicks for them sees no failure (RFC 8058 §3.1); a link leads on as long as its
message is kept, and is not found after that.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Final

from gateway.api.endpoint import Access, Call, Routes
from gateway.api.serving import Reply
from gateway.campaigns.links import Link
from gateway.campaigns.tracked import mark
from gateway.campaigns.tracking import destination_of, read_click, read_open
from gateway.campaigns.unsubscribe import OptOut, SealRing
from gateway.errors import NotFound
from gateway.model.ids import Prefix, encode
from gateway.model.token import KeyRing, Purpose, Refusal
from gateway.mta.keys import derive_ring
from gateway.store import messages, suppressions
from gateway.store.tenancy import OPERATOR, as_site

routes = Routes("public")

_HTML: Final = "text/html"  # Litestar adds the charset
_PRIVATE: Final = {"referrer-policy": "no-referrer", "x-robots-tag": "noindex"}
_PAGE: Final = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    "<title>{title}</title><style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:15vh auto;padding:0 1rem}}"
    "button{{font:inherit;padding:.6rem 1.2rem}}</style></head><body><h1>{title}</h1>{body}</body></html>"
)
_ASK: Final = _PAGE.format(
    title="Unsubscribe",
    body='<p>You will get no more marketing mail from this sender.</p><form method="post"><button>Unsubscribe</button></form>',
).encode()
_DONE: Final = _PAGE.format(
    title="You are unsubscribed", body="<p>You will get no more marketing mail from this sender.</p>"
).encode()
_GIF: Final = bytes.fromhex(
    "47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b"
)
_KEPT_MESSAGES: Final = 256


@routes.add(
    "GET", "/u/{token}", answer=str, access=Access.PUBLIC, own_transaction=True, media_type=_HTML
)  # fmt: skip
async def unsubscribe_page(call: Call) -> Reply:
    """Show the page that asks whether to unsubscribe."""
    _opt_out(call)
    return Reply(_ASK, headers=_PRIVATE)


@routes.add(
    "POST", "/u/{token}", answer=str, access=Access.PUBLIC, own_transaction=True, media_type=_HTML
)  # fmt: skip
async def unsubscribe(call: Call) -> Reply:
    """Unsubscribe an address from all marketing of a site, at once; again does nothing."""
    opt_out = _opt_out(call)
    timeout_s = call.services.config.database.acquire_timeout_s
    with suppress(NotFound):  # the site was deleted: it sends nothing any more
        async with as_site(call.services.pool, opt_out.site_id, timeout_s=timeout_s) as connection:
            await suppressions.add_suppression(
                connection,
                opt_out.site_id,
                opt_out.address,
                "marketing",
                "unsubscribe",
                f"delivery {encode(Prefix.DELIVERY, opt_out.delivery_id)}",
            )
    return Reply(_DONE, headers=_PRIVATE)


@routes.add(
    "GET", "/c/{token}", answer=None, status=302, access=Access.PUBLIC, own_transaction=True,
    gives={"Location": "where the link goes"},
)  # fmt: skip
async def follow_link(call: Call) -> Reply:
    """Lead to where a tracked link goes."""
    click = read_click(_ring(call.services.master_key, Purpose.CLICK), call.request.path_params["token"])
    if isinstance(click, Refusal):
        raise NotFound("no such link")
    destination = click.destination
    if not destination:
        timeout_s = call.services.config.database.acquire_timeout_s
        async with as_site(call.services.pool, OPERATOR, timeout_s=timeout_s) as connection:
            found = await messages.content_of_delivery(connection, click.delivery_id)
        links = _links(*found) if found is not None else ()
        destination = destination_of(click, links) or ""
    if not destination:
        raise NotFound("no such link")
    return Reply(b"", headers={**_PRIVATE, "location": destination})


@routes.add(
    "GET", "/o/{token}", answer=bytes, access=Access.PUBLIC, own_transaction=True, media_type="image/gif"
)
async def pixel(call: Call) -> Reply:
    """Give the pixel of a mail."""
    token = call.request.path_params["token"].removesuffix(".gif")
    if isinstance(read_open(_ring(call.services.master_key, Purpose.OPEN), token), Refusal):
        raise NotFound("no such picture")
    return Reply(_GIF, headers=_PRIVATE)


def _opt_out(call: Call) -> OptOut:
    found = _seals(call.services.master_key).open(call.request.path_params["token"])
    if isinstance(found, Refusal):
        raise NotFound("no such unsubscribe link; was it copied whole?")
    return found


@lru_cache(maxsize=8)
def _ring(master_key: bytes, purpose: Purpose) -> KeyRing:
    return derive_ring(master_key, purpose)


@lru_cache(maxsize=2)
def _seals(master_key: bytes) -> SealRing:
    return SealRing(derive_ring(master_key, Purpose.UNSUBSCRIBE))


@lru_cache(maxsize=_KEPT_MESSAGES)
def _links(html: str, text: str, is_template: bool) -> tuple[Link, ...]:
    return mark(html, text, liquid=is_template).links
