"""`/v1/imports`: contacts from a CSV file, as `text/csv` or as a multipart form with `file` and `list`.

The upload goes to a temporary file first, and its digest is known before the first row is read: a repeated Idempotency-Key finds
the import as it stands. The answer comes when the import has ended; `campaigns/imports` does the work.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from typing import IO, Final

import msgspec
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from gateway.api.described import Described
from gateway.api.endpoint import Call, Routes
from gateway.api.errors import Malformed, TooLarge
from gateway.api.page import Page, page
from gateway.api.serving import Reply, idempotency_key
from gateway.campaigns.imports import csv_template, run_import
from gateway.errors import Invalid, NotFound
from gateway.model.ids import Prefix, decode, encode
from gateway.store import contacts, idempotency, lists
from gateway.store.contacts import Import, RowError
from gateway.store.pool import Connection
from gateway.store.tenancy import as_site

routes = Routes("imports")

UPLOAD_LIMIT_BYTES: Final = 512 * 1024 * 1024
_IN_MEMORY_BYTES: Final = 1024 * 1024
_NAME_LIMIT: Final = 200
_LIST: Final = {"type": "string", "maxLength": _NAME_LIMIT}


class ImportView(msgspec.Struct, frozen=True):
    """An import. `rows` are the file's, less header and empty ones: each was created, merged or refused."""

    id: str
    list: str | None
    status: str
    rows: int
    created: int
    merged: int
    refused: int
    detail: str
    created_at: datetime
    ended_at: datetime | None


class RowErrorView(msgspec.Struct, frozen=True):
    """Why a row was refused. Lines count from 1, with the header."""

    line: int
    column: str
    reason: str
    value: str


class _Upload(msgspec.Struct):
    """What has come: the file, the wanted list, and a digest of both."""

    file: IO[bytes]
    digest: bytes
    list: str


@routes.add(
    "POST", "/v1/imports", answer=ImportView, status=202, scopes={"contacts"}, campaigns=True, own_transaction=True,
    query={"list": Described("id of the list to fill, or the name of one to make; in a form also as a field", _LIST)},
    uploads={
        "text/csv": {"type": "string"},
        "multipart/form-data": {
            "type": "object",
            "required": ["file"],
            "properties": {"file": {"type": "string", "contentMediaType": "text/csv"}, "list": _LIST},
            "additionalProperties": False,
        },
    },
)  # fmt: skip
async def create_import(call: Call) -> ImportView:
    """Import contacts from CSV; the columns are those of `template.csv`, any others become custom fields."""
    key = idempotency_key(call.request)
    pool, site_id = call.services.pool, call.site_id
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file:
        upload = await _receive(call, file)
        async with as_site(pool, site_id) as connection:
            if key is not None and (
                stored := await idempotency.reserve(connection, site_id, key, upload.digest)
            ):
                return _view(
                    await contacts.get_import(connection, decode(Prefix.IMPORT, stored.answer.decode()))
                )
            list_id = await _list(connection, site_id, upload.list)
            started = await contacts.begin_import(connection, site_id, list_id)
            if key is not None:
                # Which import it was: how far that came is looked up when the key comes again.
                reference = encode(Prefix.IMPORT, started.id).encode()
                await idempotency.store(connection, site_id, key, 202, reference)
        upload.file.seek(0)
        return _view(await run_import(pool, site_id, started, upload.file))


@routes.add("GET", "/v1/imports", answer=Page[ImportView], scopes={"read", "contacts"}, campaigns=True)
async def list_imports(call: Call) -> Page[ImportView]:
    """List the imports."""
    limit = call.limit()
    rows = await contacts.list_imports(call.connection, call.site_id, call.after(Prefix.IMPORT), limit + 1)
    return page(rows, limit, _view, lambda one: encode(Prefix.IMPORT, one.id))


@routes.add(
    "GET", "/v1/imports/template.csv", answer=str, scopes={"read", "contacts"}, own_transaction=True, media_type="text/csv"
)  # fmt: skip
async def get_csv_template(_: Call) -> Reply:
    """Give a CSV file to start from."""
    return Reply(csv_template().encode())


@routes.add("GET", "/v1/imports/{id}", answer=ImportView, scopes={"read", "contacts"}, campaigns=True)
async def get_import(call: Call) -> ImportView:
    """Show an import and how far it came."""
    return _view(await contacts.get_import(call.connection, call.id(Prefix.IMPORT)))


@routes.add(
    "GET",
    "/v1/imports/{id}/errors",
    answer=Page[RowErrorView],
    scopes={"read", "contacts"},
    campaigns=True,
    query={
        "after": Described(
            "`next` of the page before", {"type": "string", "pattern": "^([0-9]{1,9}(:.*)?)?$"}
        )
    },
)
async def list_errors(call: Call) -> Page[RowErrorView]:
    """List why rows were refused, by line; the first 10,000 are kept."""
    limit = call.limit()
    started = await contacts.get_import(call.connection, call.id(Prefix.IMPORT))
    line, _, column = (call.query("after") or "0:").partition(":")
    if not line.isascii() or not line.isdecimal() or len(line) > 9 or "\0" in column:
        raise Invalid([("", "after: expected the `next` of a page")])
    rows = await contacts.list_row_errors(call.connection, started.id, (int(line), column), limit + 1)
    return page(rows, limit, _error, lambda row: f"{row.line}:{row.column}")


async def _list(connection: Connection, site_id: int, wanted: str) -> int | None:
    if not wanted:
        return None
    if wanted.startswith(f"{Prefix.LIST}_"):
        try:
            return (await lists.get_list(connection, decode(Prefix.LIST, wanted, "/list"))).id
        except NotFound:
            raise Invalid([("/list", "there is no such list")]) from None
    if len(wanted) > _NAME_LIMIT or not wanted.isprintable():
        raise Invalid([("/list", f"expected a list's id, or a name of at most {_NAME_LIMIT} characters")])
    return (await lists.find_or_create_list(connection, site_id, wanted)).id


async def _receive(call: Call, file: IO[bytes]) -> _Upload:
    """Write the upload to `file`; its size is checked while it comes, and memory holds a chunk of it."""
    kind, options = parse_options_header(call.request.headers.get("content-type", ""))
    wanted = _short(call.query("list") or "")
    hashed = hashlib.sha256()
    size = 0

    def write(piece: bytes | bytearray) -> None:
        hashed.update(piece)
        file.write(piece)

    async def chunks() -> AsyncGenerator[bytes]:
        nonlocal size
        async for chunk in call.request.stream():
            size += len(chunk)
            if size > UPLOAD_LIMIT_BYTES:
                raise TooLarge([("", f"a file of more than {UPLOAD_LIMIT_BYTES} bytes")])
            yield chunk

    if kind == "text/csv":
        async for chunk in chunks():
            write(chunk)
    elif kind == "multipart/form-data" and options.get("boundary"):
        form = _Form(write)
        try:
            with PushMultipartParser(
                options["boundary"], max_segment_count=10, max_header_size=4_096
            ) as parser:
                async for chunk in chunks():
                    for part in parser.parse(chunk):
                        form.take(part)
        except MultipartError as error:
            raise Malformed([("", f"no multipart form: {error}")]) from error
        if not form.has_file:
            raise Invalid([("/file", "required: the CSV file")])
        wanted = form.list or wanted
    else:
        raise Malformed([("", "expected the content type text/csv, or multipart/form-data with a file")])
    # The boundary differs each time that a client sends the same form: it is no part of the digest.
    hashed.update(b"\0" + wanted.encode())
    return _Upload(file, hashlib.sha256(b"POST /v1/imports\n" + hashed.digest()).digest(), wanted)


def _short(wanted: str) -> str:
    """The query's `list`, which is looked at even where the form has one."""
    if len(wanted) > _NAME_LIMIT:
        raise Invalid([("/list", f"a name of more than {_NAME_LIMIT} characters")])
    return wanted


class _Form:
    """The parts of the form as they come."""

    def __init__(self, write: Callable[[bytes | bytearray], object]) -> None:
        self._write = write
        self._name = ""
        self._raw = b""
        self.has_file = False

    @property
    def list(self) -> str:
        """The field `list`.

        Raises:
            Invalid: it is not UTF-8.
        """
        try:
            return self._raw.decode().strip()
        except UnicodeDecodeError:
            raise Invalid([("/list", "not UTF-8")]) from None

    def take(self, part: MultipartSegment | bytes | bytearray | None) -> None:
        """Take a part's head, a piece of its content, or its end.

        Raises:
            Invalid: an unknown field, or a second file.
        """
        if isinstance(part, MultipartSegment):
            self._name = part.name or ""
            if self._name not in ("file", "list"):
                raise Invalid([(f"/{self._name}", "unknown field")])
            if self._name == "file" and self.has_file:
                raise Invalid([("/file", "expected one file")])
            self.has_file = self.has_file or self._name == "file"
        elif part and self._name == "file":
            self._write(part)
        elif part:
            self._raw += part
            if len(self._raw) > 4 * _NAME_LIMIT:
                raise Invalid([("/list", f"a name of more than {_NAME_LIMIT} characters")])


def _view(one: Import) -> ImportView:
    return ImportView(
        id=encode(Prefix.IMPORT, one.id),
        list=None if one.list_id is None else encode(Prefix.LIST, one.list_id),
        status=one.status,
        rows=one.rows_read,
        created=one.created,
        merged=one.merged,
        refused=one.refused,
        detail=one.detail,
        created_at=one.created_at,
        ended_at=one.ended_at,
    )


def _error(row: RowError) -> RowErrorView:
    return RowErrorView(row.line, row.column, row.reason, row.value)
