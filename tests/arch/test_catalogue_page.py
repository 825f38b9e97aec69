"""The catalogue of events and metrics: each is documented, and each is used."""

from __future__ import annotations

import re

from gateway.telemetry import Event
from tests.arch.sources import ROOT, modules
from tests.support.catalogue_page import PAGE, SILENT, metrics, page, parse


def _sources() -> str:
    return "\n".join(
        (ROOT / module.path).read_text(encoding="utf-8")
        for module in modules()
        if module.name != "gateway.telemetry"
    )


def test_docs_events_is_what_the_catalogue_says() -> None:
    committed = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    assert committed == page(), "run `python -m tests.support.catalogue_page` and commit docs/events.md"


def test_every_metric_is_counted_somewhere() -> None:
    source, tree = _sources(), parse()
    idle = [
        name
        for owner in ("Metrics", "NodeMetrics")
        for attribute, name, _, _ in metrics(tree, owner)
        if not re.search(rf"metrics\.{attribute}\b", source)
    ]
    assert not idle, f"measured by nobody, so always 0: {', '.join(idle)}"


def test_every_event_is_logged_but_those_that_are_said_not_to_be() -> None:
    source = _sources()
    silent = {event.value for event in Event if not re.search(rf"\bEvent\.{event.name}\b", source)}
    silent.discard(Event.LIBRARY.value)  # the catalogue's own
    assert silent == SILENT
