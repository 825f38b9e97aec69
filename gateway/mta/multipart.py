"""How the parts of a message stand together (RFC 2046 §5.1): text and HTML, what is shown inside the HTML, and files.

Owns the tree, its delimiters, and the pieces that the whole body comes to. Must not know which fields a message has (`mta/mime`), how a
text is encoded (`mta/body`) or what a file is (`mta/attachment`). Pure.

    multipart/mixed        with attachments
      multipart/alternative  with text and HTML
        text/plain
        multipart/related      with inline images
          text/html
          image/…
      application/…
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.mta.body import Encoded
from gateway.mta.canonical import relaxed_lines

Entity = tuple[list[bytes], Encoded]
"""A part: its Content fields, each with its CRLF (but for Content-Transfer-Encoding, which is `Encoded.encoding`), and its body."""


def text_entity(subtype: str, encoded: Encoded) -> Entity:
    """Return `text/subtype` in UTF-8."""
    return [b"Content-Type: text/" + subtype.encode() + b"; charset=utf-8\r\n"], encoded


def arrange(
    told: Entity | None,
    shown: Entity | None,
    inline: Sequence[Entity],
    attached: Sequence[Entity],
    boundary: str,
) -> Entity:
    """Return the whole of text (`told`), HTML (`shown`), one of them at least, and files; an encoding only where it is a single part.

    Raises:
        ValueError: the boundary occurs in a part.
    """
    if shown is not None and inline:
        shown = _multipart("related", boundary + "r", [shown, *inline])
    # RFC 2046 §5.1.4: the best form comes last.
    forms = [entity for entity in (told, shown) if entity is not None]
    main = forms[0] if len(forms) == 1 else _multipart("alternative", boundary + "a", forms)
    loose = attached if shown is not None else [*inline, *attached]
    return main if not loose else _multipart("mixed", boundary + "m", [main, *loose])


def encoding_field(encoded: Encoded) -> bytes:
    """Return Content-Transfer-Encoding, or nothing for a multipart."""
    return b"Content-Transfer-Encoding: " + encoded.encoding + b"\r\n" if encoded.encoding else b""


def _multipart(subtype: str, boundary: str, entities: Sequence[Entity]) -> Entity:
    mark = boundary.encode("ascii")
    delimiter = b"--" + mark
    pieces: list[bytes | int] = []
    relaxed: list[bytes | int] = []
    fragile: set[int] = set()
    for fields, encoded in entities:
        if any(isinstance(piece, bytes) and delimiter in piece for piece in encoded.pieces):
            raise ValueError("the boundary occurs in a part; expected one that nobody can guess")
        head = delimiter + b"\r\n" + b"".join(fields) + encoding_field(encoded) + b"\r\n"
        # The CRLF before a delimiter belongs to it: each part brings its own and loses none.
        pieces += [head, *encoded.pieces, b"\r\n"]
        relaxed += [relaxed_lines(head), *encoded.relaxed, b"\r\n"]
        fragile |= encoded.fragile
    end = delimiter + b"--\r\n"
    fields = [b"Content-Type: multipart/" + subtype.encode() + b';\r\n boundary="' + mark + b'"\r\n']
    return fields, Encoded(b"", (*pieces, end), (*relaxed, end), frozenset(fragile))
