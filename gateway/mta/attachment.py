"""Files that come along with a message, and images that its HTML shows: as they are kept, and as parts of the message.

Owns what a file may be called and what type it may have (RFC 2045 §5, RFC 2183, RFC 2231), and its form beside a stored message. Must
not know where it stands among the other parts (`mta/multipart`). Pure.
"""

from __future__ import annotations

import re
from base64 import encodebytes
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

import msgspec

from gateway.errors import Invalid
from gateway.mta.body import Encoded
from gateway.mta.header import check_value
from gateway.mta.multipart import Entity

_MEDIA_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
_CONTENT_ID: Final = re.compile(r"[0-9A-Za-z!#$%&'*+/=?^_`{|}~.@-]{1,200}")
_FILENAME_LIMIT: Final = 200


class Attachment(msgspec.Struct, frozen=True):
    """A file that comes along. With a `content_id` it is shown in the HTML, where `cid:…` names it."""

    filename: str
    content_type: str
    """`type/subtype`, lower case, without parameters."""
    data: bytes
    content_id: str = ""


def pack_attachments(attachments: Sequence[Attachment]) -> bytes:
    """Return files as one value, to be kept with a message; `unpack_attachments` reads it."""
    return msgspec.msgpack.encode(attachments)


def unpack_attachments(packed: bytes | None) -> tuple[Attachment, ...]:
    """Return the files of a kept value; none for None."""
    return msgspec.msgpack.decode(packed, type=tuple[Attachment, ...]) if packed else ()


def file_entity(attachment: Attachment, pointer: str) -> Entity:
    """Return a file as a part, in base64.

    Raises:
        Invalid: its name, type or content id cannot go into a message; names the field below `pointer`.
    """
    kind = attachment.content_type
    if not _MEDIA_TYPE.fullmatch(kind) or kind.startswith(("multipart/", "message/")):
        raise Invalid(
            [
                (
                    f"{pointer}/content_type",
                    "expected type/subtype in lower case, neither multipart nor message",
                )
            ]
        )
    fields = [
        b"Content-Type: " + kind.encode() + b"\r\n",
        _disposition(
            "inline" if attachment.content_id else "attachment", attachment.filename, f"{pointer}/filename"
        ),
    ]
    if attachment.content_id:
        check_value(attachment.content_id, f"{pointer}/content_id")
        if not _CONTENT_ID.fullmatch(attachment.content_id):
            raise Invalid(
                [(f"{pointer}/content_id", "expected 1 to 200 ASCII characters without spaces or brackets")]
            )
        fields.append(f"Content-ID: <{attachment.content_id}>\r\n".encode())
    data = encodebytes(attachment.data).replace(b"\n", b"\r\n")
    return fields, Encoded(b"base64", (data,), (data,), frozenset())


def _disposition(kind: str, filename: str, pointer: str) -> bytes:
    """Content-Disposition (RFC 2183); a name beyond ASCII, or a long one, in the form of RFC 2231 §3 and §4."""
    check_value(filename, pointer)
    if not 1 <= len(filename) <= _FILENAME_LIMIT or "/" in filename or "\\" in filename:
        raise Invalid(
            [(pointer, f"expected a file name of 1 to {_FILENAME_LIMIT} characters without slashes")]
        )
    # What looks like an encoded-word is decoded by some readers, though none may stand in quotes (RFC 2047 §5).
    plain = filename.isascii() and "=?" not in filename and " ".join(filename.split()) == filename
    if plain and len(filename) <= 60:
        escaped = filename.replace('"', '\\"')
        return f'Content-Disposition: {kind};\r\n filename="{escaped}"\r\n'.encode()
    lines = [f"Content-Disposition: {kind}"]
    piece, pieces = "", list[str]()
    for char in "utf-8''", *(quote(c, safe="") for c in filename):
        if piece and len(piece) + len(char) > 60:
            pieces.append(piece)
            piece = ""
        piece += char
    pieces.append(piece)
    if len(pieces) == 1:
        lines.append(f" filename*={pieces[0]}")
    else:
        lines += [f" filename*{number}*={piece}" for number, piece in enumerate(pieces)]
    return (";\r\n".join(lines) + "\r\n").encode("ascii")
