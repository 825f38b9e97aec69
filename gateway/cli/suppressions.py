"""`gateway suppressions list | add | remove | import | export`."""

from __future__ import annotations

import itertools
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Annotated, Final, Literal

import msgspec
from cyclopts import App, Parameter

from gateway.app.exits import Exit
from gateway.app.operator import operators_pool, transaction
from gateway.campaigns.csv_rows import Refused
from gateway.campaigns.imports import read_lines
from gateway.campaigns.suppression_rows import (
    COLUMNS,
    EVIDENCE_LIMIT,
    REASON_LIMIT,
    read_suppressions,
    write_rows,
)
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
from gateway.errors import GatewayError, Invalid
from gateway.model.address import AddressError, parse
from gateway.model.ids import Prefix, encode
from gateway.store.sites import get_site
from gateway.store.suppressions import (
    Filters,
    NewSuppression,
    Suppression,
    add_suppression,
    add_suppressions,
    count_suppressions,
    list_suppressions,
    remove_suppression,
)
from gateway.store.tenancy import OPERATOR, as_site

_PAGE: Final = 1_000
_BATCH: Final = 1_000
_REFUSED_SHOWN: Final = 100
_BEGIN: Final = ("", "")
_ALL: Final = Filters()

Site = Annotated[str, Parameter(help="Whose list (site_…, or its number).")]
Scope = Literal["all", "marketing"]

suppressions = App(
    name="suppressions",
    help="Who must not be written to: list, add, remove, import, export.\n\nExample: gateway suppressions list --site 7",
)


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
        found = await list_suppressions(opened, number, (after.lower(), "~"), limit, _ALL)
    shown, more = found.suppressions, found.more
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
    _check_words(reason, evidence)
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
        Path,
        Parameter(
            allow_leading_hyphen=True,
            help="A file of addresses, one a line, or CSV with a header; - is stdin.",
        ),
    ],
    *,
    site: Site,
    scope: Annotated[Scope, Parameter(help="For lines that do not say it.")] = "all",
    reason: Annotated[str, Parameter(help="For lines that do not say it.")] = "import",
    common: Common = DEFAULTS,
) -> Exit:
    """Suppress the addresses of a file, and tell each line that is none.

    CSV has the columns email, scope, reason and evidence; others are passed over. Who is suppressed already stays as they are, so it may be run
    again. Every 1,000 lines are one transaction. Exit code 1 when lines were refused; the others are taken.

    Example: gateway suppressions import old-list.csv --site 7 --scope marketing --reason "from the old system"
    """
    number = site_number(site)
    _check_words(reason, "")
    rows = added = 0
    refused: list[Refused] = []
    with ExitStack() as files:
        is_stdin = str(file) == "-"
        opened_file = sys.stdin.buffer if is_stdin else files.enter_context(_open(file, "rb"))
        size = file.stat().st_size if not is_stdin and file.is_file() else None
        config = common.load()
        async with operators_pool(config) as pool:
            async with as_site(pool, OPERATOR) as opened:
                await get_site(opened, number)
            move = files.enter_context(progress("bytes", size, shown=not common.json))
            read = read_suppressions(read_lines(opened_file), scope, reason)
            try:
                while batch := list(itertools.islice(read, _BATCH)):
                    refused += [row for row in batch if isinstance(row, Refused)]
                    new = [
                        NewSuppression(row.email, row.scope, row.reason, row.evidence)
                        for row in batch
                        if not isinstance(row, Refused)
                    ]
                    async with as_site(pool, OPERATOR) as opened:
                        added += await add_suppressions(opened, number, new)
                    rows += len(batch)
                    if size is not None:
                        move(opened_file.tell())
            except Invalid as error:
                raise GatewayError(
                    f"{file}: {error}; expected one address a line, or a header with a column email"
                ) from error
    known = rows - added - len(refused)
    if common.json:
        errors = [msgspec.to_builtins(one) for one in refused]
        print_json({"rows": rows, "added": added, "known": known, "refused": len(refused), "errors": errors})
    else:
        for one in refused[:_REFUSED_SHOWN]:
            say(f"line {one.line}: {': '.join(part for part in (one.column, one.reason, one.value) if part)}")
        if len(refused) > _REFUSED_SHOWN:
            say(f"and {len(refused) - _REFUSED_SHOWN:,} more lines that were refused: --json lists all")
        say(f"{rows:,} read, {added:,} added, {known:,} known already, {len(refused):,} refused")
    return Exit.FAILED if refused else Exit.OK


@suppressions.command
async def export(
    file: Annotated[Path | None, Parameter(help="Where to; without, stdout.")] = None,
    *,
    site: Site,
    common: Common = DEFAULTS,
) -> None:
    """Write all suppressions of a site as CSV, which `import` reads again. With --json, one object a line.

    What a spreadsheet would take for a formula has an apostrophe before it, which `import` takes away.

    Example: gateway suppressions export suppressions.csv --site 7
    """
    number = site_number(site)
    config = common.load()
    written = 0
    with ExitStack() as files:
        async with operators_pool(config) as pool:
            async with as_site(pool, OPERATOR) as opened:
                await get_site(opened, number)
                total = await count_suppressions(opened, number)
            # Only now: a site that is not there must not cost the file that was there.
            out = sys.stdout.buffer if file is None else files.enter_context(_open(file, "wb"))
            move = files.enter_context(
                progress("suppressions", total, shown=file is not None and not common.json)
            )
            if not common.json:
                out.write(write_rows([COLUMNS]))
            after, more = _BEGIN, True
            while more:
                # Written outside of a transaction: who reads slowly, or no more, keeps none open.
                async with as_site(pool, OPERATOR) as opened:
                    page = await list_suppressions(opened, number, after, _PAGE, _ALL)
                if common.json:
                    out.write(
                        b"".join(msgspec.json.encode(_document(one)) + b"\n" for one in page.suppressions)
                    )
                else:
                    out.write(write_rows([_cells(one) for one in page.suppressions]))
                written += len(page.suppressions)
                after, more = page.until, page.more
                move(written)
            out.flush()
    if file is not None and not common.json:
        say(f"{file}: {written:,} suppressions")


def _open(path: Path, mode: Literal["rb", "wb"]) -> IO[bytes]:
    try:
        return path.open(mode)
    except OSError as error:
        raise GatewayError(f"{path}: {error.strerror}") from error


def _check_words(reason: str, evidence: str) -> None:
    for option, text, limit in (("--reason", reason, REASON_LIMIT), ("--evidence", evidence, EVIDENCE_LIMIT)):
        if len(text) > limit or "\0" in text or (option == "--reason" and not text):
            raise UsageError(f"{option}: expected at most {limit} characters")


def _cells(one: Suppression) -> tuple[str, ...]:
    delivery = "" if one.delivery_id is None else encode(Prefix.DELIVERY, one.delivery_id)
    return (one.email, one.scope, one.reason, one.evidence, delivery, one.created_at.isoformat())


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
