"""The letters that the whole way is measured with, and the requests that hand them in. Pure.

Owns their words and sizes. Two kinds: one message for many, personal by its template (`personal`), and a message for each
recipient with content of its own and no template (`own`). Must not know how requests are sent, or what becomes of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

import msgspec

from bench.stage import FROM_DOMAIN

Content = Literal["personal", "own"]

RECIPIENTS: Final = 500
"""Recipients of a request with one message."""
ITEMS: Final = 50
"""Messages of a request in which each has its own content: 0.7 MB at 14 kB each."""
LINKS: Final = 10
OVERHEAD_BYTES: Final = 1_450
"""What a message has on the wire beside its HTML part: header with List-Unsubscribe, signature, text part, and the edges between parts."""
HTML_BYTES: Final = 14_000 - OVERHEAD_BYTES
"""HTML part of a message of 14 kB on the wire."""

SUBJECT: Final = "{{ first_name }}, news for {{ city }}"
TEXT: Final = "Hello {{ first_name }},\n\nthere is news for your {{ plan }} plan in {{ city }}.\n\nYours\n"

_LINK: Final = '<p><a href="https://shop.test/offer/%d?who={{ first_name }}&amp;plan={{ plan }}">Offer %d for {{ first_name }}</a></p>\n'
_WORDS: Final = "Some words about what is new this week, in a line of usual length for a letter."
_LINE: Final = f'<tr><td style="font-family:Arial,sans-serif;padding:8px 16px">{_WORDS}</td></tr>\n'
_TOP: Final = "<html><body><h1>Hello {{ first_name }}</h1>\n"
_END: Final = "</body></html>\n"


class Request(NamedTuple):
    """The body of one `POST /v1/messages`, and how many deliveries it asks for."""

    body: bytes
    deliveries: int


def html(size_bytes: int) -> str:
    """A newsletter whose personal form has about so many bytes (lines end with CRLF), with ten personal links between words."""
    links = [_LINK % (number, number) for number in range(LINKS)]
    fixed = len(fill("".join([_TOP, *links, _END]), 1_000_000)) + LINKS + 2
    lines = max(0, round((size_bytes - fixed) / (len(_LINE) + 1)))
    parts = [_TOP]
    for number, link in enumerate(links):
        parts.append(link)
        parts.append(_LINE * (lines * (number + 1) // LINKS - lines * number // LINKS))
    return "".join([*parts, _END])


def variables(number: int) -> dict[str, str]:
    """What a template is filled with for one person."""
    return {"first_name": f"Ann{number}", "city": "Oslo", "plan": "pro"}


def fill(text: str, number: int) -> str:
    """A text with one person's variables in it, as an app that renders by itself would hand it in."""
    for name, value in variables(number).items():
        text = text.replace("{{ " + name + " }}", value)
    return text


def requests(content: Content, html_bytes: int, first: int, count: int, domains: int) -> Iterator[Request]:
    """Requests for `count` people from number `first` on, in turn over the domains.

    Personal: one message for up to 500 people. Own: up to 50 messages, each for one person, in one request.
    """
    letter = html(html_bytes)
    step = RECIPIENTS if content == "personal" else ITEMS
    for start in range(first, first + count, step):
        numbers = range(start, min(start + step, first + count))
        if content == "personal":
            to = [{"email": _address(n, domains), "variables": variables(n)} for n in numbers]
            body: object = _message(SUBJECT, letter, TEXT, to)
        else:
            body = [
                _message(fill(SUBJECT, n), fill(letter, n), fill(TEXT, n), _address(n, domains))
                for n in numbers
            ]
        yield Request(msgspec.json.encode(body), len(numbers))


def _address(number: int, domains: int) -> str:
    return f"user{number}@d{number % domains}.test"


def _message(subject: str, letter: str, text: str, to: object) -> dict[str, object]:
    return {
        "from": f"News <news@{FROM_DOMAIN}>", "to": to, "subject": subject, "html": letter, "text": text, "stream": "marketing",
    }  # fmt: skip
