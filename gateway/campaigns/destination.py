"""Where a link leads: from what stands in an attribute to a URL that may be redirected to. Pure.

Owns which destinations are tracked (http and https, security 16) and how an attribute's text is read (HTML, "attribute value
state", and the URL standard's cleaning of white space). Must not know tokens or templates.

The stdlib's `html.unescape` is for text: it reads `?a=1&section=2` as `?a=1§ion=2`. In attributes a reference without
semicolon does not count before `=` or a letter, and raw ampersands in links are common.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from html import unescape
from html.entities import html5
from typing import Final
from urllib.parse import quote

DESTINATION_LIMIT: Final = 2_000
"""Longest destination that is tracked, in characters; longer ones are left alone."""
FINGERPRINT_BYTES: Final = 6

WHITE_SPACE: Final = " \t\n\f\r"
"""What HTML calls so."""

_REFERENCE: Final = re.compile(r"&(#[xX]?[0-9A-Fa-f]+;?|[A-Za-z][A-Za-z0-9]*;?)(=?)")
_STRIPPED: Final = "".join(map(chr, range(33)))
_LINE_ENDS: Final = str.maketrans("", "", "\t\n\r")
_CLEAN: Final = re.compile(r"https?://[!$-.0-;=@-\[\]-_a-~][!#-;=?-\[\]-_a-~]*+")  # nearly every URL
_HTTP: Final = re.compile(r"(https?)(://[!-~]+?)([/?#].*)?", re.IGNORECASE | re.DOTALL)
_NOT_IN_AUTHORITY: Final = re.compile(r'[/?#\\"<>`]')
_QUOTED: Final = re.compile(r"[ \"<>`\x80-\U0010ffff]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def read_attribute(value: str) -> str:
    """Return an attribute's value with its character references resolved, as a browser does."""
    if (ampersands := value.count("&")) == value.count("&amp;"):
        return value.replace("&amp;", "&") if ampersands else value
    return _REFERENCE.sub(_resolve, value)


def clean(url: str) -> str:
    """Return the URL as a browser would ask for it, or nothing if it is not to be tracked.

    Not tracked: other schemes, no host, a host beyond ASCII, control characters, more than `DESTINATION_LIMIT`.
    """
    if len(url) <= DESTINATION_LIMIT and _CLEAN.fullmatch(url):
        return url
    url = url.strip(_STRIPPED).translate(_LINE_ENDS)
    match = _HTTP.fullmatch(url)
    if match is None:
        return ""
    scheme, authority, rest = match[1].lower(), match[2], match[3] or ""
    if _NOT_IN_AUTHORITY.search(authority, 3) or _CONTROL.search(rest):
        return ""
    try:
        url = scheme + authority + _QUOTED.sub(lambda unsafe: quote(unsafe[0], safe=""), rest)
    except UnicodeEncodeError:  # half a surrogate pair
        return ""
    return url if len(url) <= DESTINATION_LIMIT else ""


def fingerprint(destination: str) -> bytes:
    """Return six octets that stand for a destination in a token; not secret, the token's MAC covers them."""
    return blake2b(destination.encode(), digest_size=FINGERPRINT_BYTES).digest()


def _resolve(reference: re.Match[str]) -> str:
    name, equals = reference[1], reference[2]
    if name[0] == "#":
        return unescape(f"&{name}") + equals
    if equals and not name.endswith(";"):
        return reference[0]
    character = html5.get(name)
    return reference[0] if character is None else character + equals
