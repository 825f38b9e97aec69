"""`gateway send`: one message, through the same door as an app's, without an app.

It goes by the database and not by the API: it works with what an operator has (the configuration, and no site's key that would stand in the
shell's history), while the API is down too. Checks, limits and idempotency are those of `POST /v1/messages`.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from cyclopts import Parameter

from gateway.api.decode import decode
from gateway.api.submission import INLINE, Checked, Content, MessageBody, check, has_variables, submission
from gateway.app.database import database
from gateway.cli.common import DEFAULTS, Common, UsageError, print_json, print_table, say, site_number
from gateway.clock import SystemClock
from gateway.errors import Forbidden, Invalid, NotFound
from gateway.model.ids import Prefix, delivery_ids, encode
from gateway.model.ids import decode as number_in
from gateway.store import templates
from gateway.store.intake import Once
from gateway.store.sites import get_site
from gateway.store.tenancy import as_site
from gateway.submission.desk import Desk, open_desk

_BODY: Final = msgspec.json.Decoder(MessageBody)
_TAKEN: Final = 202
_KEY_LIMIT: Final = 255


async def send(
    *,
    site: Annotated[str, Parameter(help="Who sends (site_…, or its number).")],
    sender: Annotated[
        str, Parameter(name="--from", help="On a verified domain: address, or Name <address>.")
    ],
    to: Annotated[list[str], Parameter(help="A recipient; may be given several times.", negative=())],
    subject: Annotated[str | None, Parameter(help="The subject.")] = None,
    text: Annotated[str, Parameter(help="The text; @file is read from a file, @- from stdin.")] = "",
    html: Annotated[str, Parameter(help="The HTML; @file is read from a file, @- from stdin.")] = "",
    template: Annotated[
        str | None, Parameter(help="A template (tpl_…) instead of subject, text and HTML.")
    ] = None,
    variables: Annotated[
        str, Parameter(help="A JSON object for Liquid: the template's, or the content's.")
    ] = "{}",
    stream: Annotated[
        Literal["transactional", "marketing"], Parameter(help="What kind of mail it is.")
    ] = "transactional",
    idempotency_key: Annotated[
        str | None, Parameter(help="Sent once under this name within 48 hours, however often it is called.")
    ] = None,
    common: Common = DEFAULTS,
) -> None:
    """Send one message, as `POST /v1/messages` does, through the database: no key and no running API is needed.

    It returns when the message is on disk; `gateway explain` says what becomes of it.

    Example: gateway send --site 7 --from hello@acme.example --to ada@example.org --subject "Hello" --text "Hello, Ada."

    Example: date | gateway send --site 7 --from hello@acme.example --to ada@example.org --subject "The time" --text @- --json
    """
    number = site_number(site)
    if idempotency_key is not None and not (
        0 < len(idempotency_key) <= _KEY_LIMIT and idempotency_key.isascii() and idempotency_key.isprintable()
    ):
        raise UsageError(f"--idempotency-key: expected 1 to {_KEY_LIMIT} printable characters of ASCII")
    said: dict[str, Any] = {
        "from": sender, "to": to, "subject": subject, "text": _content(text, "--text"), "html": _content(html, "--html"),
        "template": template, "variables": _variables(variables), "stream": stream,
    }  # fmt: skip
    body = msgspec.json.encode({name: value for name, value in said.items() if value or name == "to"})
    once = None
    if idempotency_key is not None:
        once = Once(idempotency_key, hashlib.sha256(b"gateway send\n" + body).digest(), _TAKEN)
    config, clock = common.load(), SystemClock()
    async with (
        database(config) as dsn,
        open_desk(
            config, dsn, shaping=common.load_shaping(), clock=clock, application_name="gateway command"
        ) as desk,
    ):
        now = clock.now()
        checked = check(decode(body, _BODY), now, config.expiry)
        await _require_site(desk, number)
        domain_id = await desk.senders.domain_id(number, checked.sender.domain)
        item = submission(checked, await _words(desk, number, checked), domain_id)
        accepted = await desk.intake.submit(number, [item], now, _answer, once)
    message = accepted.answer.decode()
    recipients = item.deliveries.recipients
    ids = delivery_ids(number_in(Prefix.MESSAGE, message), len(recipients))
    suppressed = {encode(Prefix.DELIVERY, one) for one in accepted.suppressed}
    rows = [
        (id_, recipient, "suppressed" if id_ in suppressed else "queued")
        for id_, recipient in zip(ids, recipients, strict=True)
    ]
    if common.json:
        deliveries = [{"id": id_, "to": recipient, "state": state} for id_, recipient, state in rows]
        print_json({"id": message, "deliveries": deliveries, "replayed": accepted.replayed})
        return
    say(f"{message}: {'accepted before, under this key' if accepted.replayed else 'accepted'}")
    print_table(["delivery", "to", "state"], rows)


def _answer(numbers: Sequence[int]) -> bytes:
    return encode(Prefix.MESSAGE, numbers[0]).encode()


async def _require_site(desk: Desk, number: int) -> None:
    async with as_site(desk.pool, number) as connection:
        if (await get_site(connection, number)).status == "suspended":
            raise Forbidden("this site is suspended")


async def _words(desk: Desk, site_id: int, checked: Checked) -> Content:
    """The message's own words, or those of its template."""
    item = checked.item
    if checked.template_id is None:
        return Content(item.subject or "", item.html, item.text, INLINE if has_variables(item) else "")
    async with as_site(desk.pool, site_id) as connection:
        try:
            found = await templates.get_template(connection, checked.template_id)
        except NotFound:
            raise Invalid([("/template", "there is no such template")]) from None
    return Content(found.subject, found.html, found.text, f"{found.id}@{found.version}")


def _content(text: str, option: str) -> str:
    """What an option says, or the file that it names with an @."""
    if not text.startswith("@"):
        return text
    try:
        return sys.stdin.read() if text == "@-" else Path(text[1:]).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{option}: {text[1:]}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{option}: {text[1:]} is not UTF-8 ({error})") from error


def _variables(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise UsageError(f"--variables: no JSON object: {error}") from error
