"""`gateway domains add | list | records | verify`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from gateway.app.exits import Exit
from gateway.app.operator import operators_pool, transaction
from gateway.cli.common import (
    DEFAULTS,
    Common,
    domain_name,
    moment,
    number_of,
    print_json,
    print_table,
    say,
    site_number,
)
from gateway.config import Config, MxConfig
from gateway.errors import ConfigError
from gateway.model.ids import Prefix, encode
from gateway.mta.dkim_record import RecordCheck, RecordState, check_record
from gateway.mta.dns import Dns
from gateway.mta.keys import load_or_create_master_key
from gateway.mta.mx_plan import Answer, Unanswered
from gateway.store.domains import Domain, domain_named, get_domain, list_domains, mark_verified
from gateway.store.pool import Connection
from gateway.store.sites import get_site
from gateway.store.tenancy import OPERATOR, as_site
from gateway.submission.domains import KeyRecord, add_domain, key_records

_PAGE = 1_000

domains = App(
    name="domains",
    help="Sending domains: add, list, records, verify.\n\nExample: gateway domains add acme.example --site 7",
)


@domains.command
async def add(
    name: Annotated[str, Parameter(help="The domain, as in acme.example.")],
    *,
    site: Annotated[str, Parameter(help="Whose it is (site_…, or its number).")],
    ed25519: Annotated[
        bool, Parameter(negative=(), help="Sign with an Ed25519 key as well (RFC 8463).")
    ] = False,
    common: Common = DEFAULTS,
) -> None:
    """Add a sending domain to a site, and print the DNS records to publish.

    Makes its DKIM keys: one that signs, and a spare for the next rotation. They are sealed with the envelope key of this configuration
    ([keys] master_key_file), so run it where the gateway runs.

    Example: gateway domains add acme.example --site 7
    """
    config = common.load()
    number, wanted = site_number(site), domain_name(name, "the domain")
    master_key = _master_key(config)
    async with transaction(config) as opened:
        await get_site(opened, number)
        domain = await add_domain(opened, number, wanted, master_key, ed25519=ed25519)
        records = await key_records(opened, domain)
    if common.json:
        print_json(_document(domain) | {"records": _records(records)})
        return
    say(
        f"{encode(Prefix.DOMAIN, domain.id)}: {domain.name}; publish these, then: gateway domains verify {domain.name}"
    )
    _show(records)


@domains.command(name="list")
async def list_(
    *,
    site: Annotated[str, Parameter(help="Whose domains to show (site_…, or its number).")],
    common: Common = DEFAULTS,
) -> None:
    """Show a site's sending domains.

    Example: gateway domains list --site 7 --json
    """
    number = site_number(site)
    found: list[Domain] = []
    async with transaction(common.load()) as opened:
        await get_site(opened, number)
        while page := await list_domains(opened, number, found[-1].id if found else 0, _PAGE):
            found += page
    if common.json:
        print_json([_document(domain) for domain in found])
        return
    print_table(
        ["id", "name", "status", "verified at"],
        [(encode(Prefix.DOMAIN, d.id), d.name, d.status, moment(d.verified_at)) for d in found],
    )


@domains.command
async def records(
    domain: Annotated[str, Parameter(help="The domain: its name, its id (dom_…), or its number.")],
    *,
    common: Common = DEFAULTS,
) -> None:
    """Show the DNS records that a domain needs.

    Example: gateway domains records acme.example
    """
    async with transaction(common.load()) as opened:
        found = await _find(opened, domain)
        needed = await key_records(opened, found)
    if common.json:
        print_json(_document(found) | {"records": _records(needed)})
        return
    _show(needed)


@domains.command
async def verify(
    domain: Annotated[str, Parameter(help="The domain: its name, its id (dom_…), or its number.")],
    *,
    vouch: Annotated[
        bool, Parameter(negative=(), help="Take it for verified without a look at DNS, on your own word.")
    ] = False,
    common: Common = DEFAULTS,
) -> Exit:
    """Look for a domain's records in DNS, and let its site send from it once those of all signing keys are there.

    The spare's record is looked for too; without it a later rotation would break signatures, but it does not stand in the way now. Exit code 1
    when the domain is not verified. It stays verified once it was.

    Example: gateway domains verify acme.example

    Example: gateway domains verify acme.example --json
    """
    config = common.load()
    async with operators_pool(config) as pool:
        async with as_site(pool, OPERATOR) as opened:
            found = await _find(opened, domain)
            needed = await key_records(opened, found)
        # No transaction is open while DNS is asked.
        checks = None if vouch else await _look(needed, config.mx)
        right = checks is None or all(
            check.state is RecordState.FOUND
            for record, check in zip(needed, checks, strict=True)
            if record.signs
        )
        if right:
            async with as_site(pool, OPERATOR) as opened:
                found = await mark_verified(opened, found.id)
    if common.json:
        print_json(_document(found) | {"verified_now": right, "records": _records(needed, checks)})
    else:
        if checks is not None:
            _show_checks(needed, checks)
        say(
            f"{found.name} is {found.status}"
            if right
            else f"{found.name}: not verified now (it is {found.status})"
        )
    return Exit.OK if right else Exit.FAILED


async def _find(connection: Connection, text: str) -> Domain:
    if text.isdecimal() or text.startswith(f"{Prefix.DOMAIN}_"):
        number = number_of(Prefix.DOMAIN, text, "the domain")
        return await get_domain(connection, min(number, (1 << 31) - 1))
    return await domain_named(connection, domain_name(text, "the domain"))


async def _look(needed: list[KeyRecord], config: MxConfig) -> list[RecordCheck]:
    """Ask DNS for every record side by side, for `[mx] timeout_s` at most."""
    dns = Dns(config.nameservers)

    async def ask(name: str) -> Answer[str]:
        try:
            async with asyncio.timeout(config.timeout_s):
                return await dns.texts(name)
        except TimeoutError:
            return Unanswered(f"no answer in {config.timeout_s:g} s")

    try:
        answers = await asyncio.gather(*(ask(record.name) for record in needed))
    finally:
        await dns.close()
    return [check_record(record.value, answer) for record, answer in zip(needed, answers, strict=True)]


def _master_key(config: Config) -> bytes:
    """The envelope key. Beside a configured Postgres none is made here: the gateway's own may be elsewhere, and would open nothing.

    Raises:
        ConfigError: it is not there, or cannot be read.
    """
    if config.database.dsn and not config.master_key_path.exists():
        raise ConfigError(
            "there is no envelope key here to seal DKIM keys with",
            path=config.master_key_path,
            key="keys.master_key_file",
            hint="run this where the gateway runs, or name a copy of its key",
        )
    return load_or_create_master_key(config.master_key_path)


def _show(needed: list[KeyRecord]) -> None:
    """Name and value each on a line of its own, to be copied whole: a value has some 400 characters."""
    for record in needed:
        say(f"TXT  {record.name}  ({'signs' if record.signs else 'spare'})\n     {record.value}")


def _show_checks(needed: list[KeyRecord], checks: list[RecordCheck]) -> None:
    print_table(
        ["name", "key", "in DNS", ""],
        [
            (
                record.name,
                "signs" if record.signs else "spare",
                check.state,
                check.why or " | ".join(_unexpected(check)),
            )
            for record, check in zip(needed, checks, strict=True)
        ],
    )


def _unexpected(check: RecordCheck) -> list[str]:
    return [f"found: {value[:60]}" for value in check.found] if check.state is RecordState.OTHER else []


def _records(needed: list[KeyRecord], checks: list[RecordCheck] | None = None) -> list[dict[str, object]]:
    shown: list[dict[str, object]] = [
        {"type": "TXT", "name": record.name, "value": record.value, "signs": record.signs}
        for record in needed
    ]
    for entry, check in zip(shown, checks or (), strict=False):
        entry |= {"state": check.state, "found": check.found, "why": check.why or None}
    return shown


def _document(domain: Domain) -> dict[str, object]:
    document: dict[str, object] = msgspec.to_builtins(domain)
    for inside in ("site_id", "selector", "public_key"):
        del document[inside]
    return document | {"id": encode(Prefix.DOMAIN, domain.id), "site": encode(Prefix.SITE, domain.site_id)}
