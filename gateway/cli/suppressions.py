"""`gateway suppressions list | add | remove | import | export`."""

from __future__ import annotations

import csv
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Final, Literal, TextIO, cast

import msgspec
from cyclopts import App, Parameter

from gateway.app.exits import Exit
from gateway.app.operator import operators_pool, transaction
from gateway.cli.common import (
    DEFAULTS,
    Common,
    UsageError,
    moment,
    print_json,
    print_table,
    say,
    site_number,
)
from gateway.cli.progress import progress
from gateway.cli.suppression_file import COLUMNS, EVIDENCE_LIMIT, REASON_LIMIT, Refused, read_entries
from gateway.errors import GatewayError
from gateway.model.address import AddressError, parse
from gateway.model.ids import Prefix, encode
from gateway.store.pool import Connection
from gateway.store.sites import get_site
from gateway.store.suppression_lists import NewSuppression, add_suppressions, count_suppressions
from gateway.store.suppressions import Suppression, add_suppression, list_suppressions, remove_suppression
from gateway.store.tenancy import OPERATOR, as_site

_PAGE: Final = 1_000
_BATCH: Final = 1_000
_REFUSED_SHOWN: Final = 100
_BEGIN: Final = ("", "")

Site = Annotated[str, Parameter(help="Whose list (site_…, or its number).")]
Scope = Literal["all", "marketing"]

suppressions = App(name="suppressions", help="Who must not be written to: list, add, remove, import, export.")


@suppressions.command(name="list")
async def list_(
    *,
    site: Site,
    after: Annotated[str, Parameter(help="Begin after this address.")] = "",
    limit: Annotated[int, Parameter(help="How many at most; `export` gives all.")] = 100,
    common: Common = DEFAULTS,
) -> None:
    """Show a site's suppressions, by address.

    Example: gateway suppressions list --site 7

    Example: gateway suppressions list --site 7 --after m@example.org --json
    """
    number = site_number(site)
    if not 1 <= limit <= _PAGE:
        raise UsageError(f"--limit: {limit} is not 1 to {_PAGE}")
    async with transaction(common.load()) as opened:
        await get_site(opened, number)
        found = await list_suppressions(opened, number, (after.lower(), "~"), limit + 1)
    shown, more = found[:limit], len(found) > limit
    if common.json:
        print_json(
            {
                "data": [_document(one) for one in shown],
                "has_more": more,
                "next": shown[-1].email if more else None,
            }
        )
        return
    print_table(
        ["address", "scope", "reason", "since", "evidence"],
        [(one.email, one.scope, one.reason, moment(one.created_at), one.evidence) for one in shown],
    )
    if more:
        say(f"there are more: gateway suppressions list --site {site} --after {shown[-1].email}")


@suppressions.command
async def add(
    email: Annotated[str, Parameter(help="The address.")],
    *,
    site: Site,
    scope: Annotated[Scope, Parameter(help="All mail, or marketing alone.")] = "all",
    reason: Annotated[str, Parameter(help="Why, in a word or two.")] = "manual",
    evidence: Annotated[str, Parameter(help="What shows it.")] = "",
    common: Common = DEFAULTS,
) -> None:
    """Suppress an address; one that is suppressed so already stays as it is.

    Example: gateway suppressions add mallory@example.org --site 7 --reason "asked by phone"
    """
    number, address = site_number(site), _address(email)
    for option, text, limit in (("--reason", reason, REASON_LIMIT), ("--evidence", evidence, EVIDENCE_LIMIT)):
        if len(text) > limit or "\0" in text or (option == "--reason" and not text):
            raise UsageError(f"{option}: expected at most {limit} characters")
    async with transaction(common.load()) as opened:
        made = await add_suppression(opened, number, address, scope, reason, evidence)
    if common.json:
        print_json(_document(made))
    else:
        say(f"{made.email} is suppressed ({made.scope}: {made.reason})")


@suppressions.command
async def remove(
    email: Annotated[str, Parameter(help="The address.")],
    *,
    site: Site,
    scope: Annotated[Scope | None, Parameter(help="One scope alone; without, both.")] = None,
    common: Common = DEFAULTS,
) -> None:
    """Let an address be written to again.

    Example: gateway suppressions remove mallory@example.org --site 7
    """
    number, address = site_number(site), _address(email)
    async with transaction(common.load()) as opened:
        await remove_suppression(opened, number, address, scope)
    if common.json:
        print_json({"email": address, "scope": scope, "removed": True})
    else:
        say(f"{address} is not suppressed any more")


@suppressions.command(name="import")
async def import_(
    file: Annotated[
        Path, Parameter(help="A file of addresses, one a line, or CSV with a header; - is stdin.")
    ],
    *,
    site: Site,
    scope: Annotated[Scope, Parameter(help="For lines that do not say it.")] = "all",
    reason: Annotated[str, Parameter(help="For lines that do not say it.")] = "import",
    common: Common = DEFAULTS,
) -> Exit:
    """Suppress the addresses of a file, and tell each line that is none.

    CSV has the columns email, scope, reason and evidence. Who is suppressed already stays as they are, so it may be run again. Every 1,000 lines
    are one transaction. Exit code 1 when lines were refused; the others are taken.

    Example: gateway suppressions import old-list.csv --site 7 --scope marketing --reason "from the old system"
    """
    number = site_number(site)
    read = added = 0
    refused: list[Refused] = []
    with ExitStack() as files:
        lines = sys.stdin if str(file) == "-" else files.enter_context(_open(file))
        config = common.load()
        async with operators_pool(config) as pool:
            async with as_site(pool, OPERATOR) as opened:
                await get_site(opened, number)
            move = files.enter_context(progress("lines", None, shown=not common.json))
            batch: list[NewSuppression] = []

            async def flush() -> int:
                async with as_site(pool, OPERATOR) as opened:
                    new = await add_suppressions(opened, number, batch)
                batch.clear()
                return new

            for entry in read_entries(lines, scope, reason):
                read += 1
                if isinstance(entry, Refused):
                    refused.append(entry)
                    continue
                batch.append(NewSuppression(entry.email, entry.scope, entry.reason, entry.evidence))
                if len(batch) >= _BATCH:
                    added += await flush()
                    move(read)
            added += await flush()
    if common.json:
        told = [msgspec.to_builtins(one) for one in refused]
        print_json({"read": read, "added": added, "known": read - added - len(refused), "refused": told})
    else:
        for one in refused[:_REFUSED_SHOWN]:
            say(f"line {one.line}: {one.why}")
        if len(refused) > _REFUSED_SHOWN:
            say(f"and {len(refused) - _REFUSED_SHOWN:,} more lines that were refused: --json lists all")
        say(
            f"{read:,} read, {added:,} added, {read - added - len(refused):,} known already, {len(refused):,} refused"
        )
    return Exit.FAILED if refused else Exit.OK


@suppressions.command
async def export(
    file: Annotated[Path | None, Parameter(help="Where to; without, stdout.")] = None,
    *,
    site: Site,
    common: Common = DEFAULTS,
) -> None:
    """Write all suppressions of a site as CSV, which `import` reads again. With --json, one object a line.

    Example: gateway suppressions export suppressions.csv --site 7
    """
    number = site_number(site)
    config = common.load()
    written = 0
    with ExitStack() as files:
        out = sys.stdout if file is None else files.enter_context(_open(file, "w"))
        async with transaction(config) as opened:
            await get_site(opened, number)
            shown = file is not None and not common.json
            move = files.enter_context(
                progress("suppressions", await count_suppressions(opened, number), shown=shown)
            )
            writer = csv.writer(out, lineterminator="\n")
            if not common.json:
                writer.writerow(COLUMNS)
            async for page in _pages(opened, number):
                for one in page:
                    if common.json:
                        out.write(msgspec.json.encode(_document(one)).decode() + "\n")
                    else:
                        writer.writerow(
                            [one.email, one.scope, one.reason, one.evidence, one.created_at.isoformat()]
                        )
                written += len(page)
                move(written)
    if file is not None and not common.json:
        say(f"{file}: {written:,} suppressions")


async def _pages(connection: Connection, site_id: int) -> AsyncIterator[list[Suppression]]:
    after = _BEGIN
    while page := await list_suppressions(connection, site_id, after, _PAGE):
        yield page
        after = (page[-1].email, page[-1].scope)


def _open(path: Path, mode: Literal["r", "w"] = "r") -> TextIO:
    try:
        return cast(TextIO, path.open(mode, encoding="utf-8", errors="replace", newline=""))
    except OSError as error:
        raise GatewayError(f"{path}: {error.strerror}") from error


def _address(text: str) -> str:
    try:
        return parse(text).wire
    except AddressError as error:
        raise UsageError(f'the address: "{text}": {error}') from error


def _document(one: Suppression) -> dict[str, object]:
    return {
        "email": one.email,
        "scope": one.scope,
        "reason": one.reason,
        "evidence": one.evidence,
        "delivery": None if one.delivery_id is None else encode(Prefix.DELIVERY, one.delivery_id),
        "created_at": one.created_at,
    }
