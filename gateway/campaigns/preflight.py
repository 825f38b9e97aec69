"""Whether a broadcast may go out as it is: facts in, checks out; no clock, no database.

Owns the checks and their words. Must not know how the facts are read, nor what a launch does with them: a launch looks again, since
what holds when somebody asks need not hold when they press the button.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec

from gateway.campaigns.render import compile_template
from gateway.errors import TemplateError


class Facts(msgspec.Struct, frozen=True):
    """What the checks look at. `variables`: those of the first who is on the list (JSON), or None where it is empty."""

    domain: str
    domain_verified: bool
    recipients: int
    subject: str
    html: str
    text: str
    variables: str | None
    held_why: str | None
    public_url: str


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at. What is not `required` is told, and keeps nothing from being sent."""

    name: str
    passed: bool
    required: bool
    detail: str


def checks(facts: Facts) -> list[Check]:
    """Look at a broadcast; the order is that in which somebody would mend it."""
    found = [
        _check("domain_verified", "" if facts.domain_verified else f"{facts.domain} is not verified"),
        _check("template_renders", _rendering(facts)),
        _check(
            "recipients",
            ""
            if facts.recipients
            else "nobody is left to be written to: the list is empty, or all suppressed",
        ),
        _check("site_sends", "" if facts.held_why is None else f"the site is on hold: {facts.held_why}"),
    ]
    unreachable = (
        f"links to unsubscribe lead to {facts.public_url}, which receivers cannot reach; see api.public_url"
        if _is_inside(facts.public_url)
        else ""
    )
    return [*found, _check("links_reachable", unreachable, required=False)]


def is_ready(found: list[Check]) -> bool:
    """Whether nothing that is required is missing."""
    return all(check.passed for check in found if check.required)


def _check(name: str, wrong: str, *, required: bool = True) -> Check:
    return Check(name, not wrong, required, wrong)


def _rendering(facts: Facts) -> str:
    """What goes wrong with the first recipient's mail; variables differ, so another one's may still fail."""
    try:
        template = compile_template(facts.subject, facts.html, facts.text)
        template.render(msgspec.json.decode(facts.variables) if facts.variables else {})
    except TemplateError as error:
        return str(error)
    return ""


def _is_inside(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal"))
