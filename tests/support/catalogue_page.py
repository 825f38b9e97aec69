"""docs/events.md, as the catalogue in `gateway/telemetry.py` has it. `python -m tests.support.catalogue_page` writes it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
PAGE = _ROOT / "docs" / "events.md"
_SOURCE = _ROOT / "gateway" / "telemetry.py"
_HEAD = """# Events and metrics

Every event that the gateway logs, and everything that it measures. Written from the catalogue, `gateway/telemetry.py`, by
`python -m tests.support.catalogue_page`; a test holds the two together.

A line of the log is an object of JSON (in a terminal: text) with `event`, `at` (UTC), `level`, and the fields that are named here. Above
DEBUG no line holds a full address: `alice@example.org` is `a…@example.org`; contents and secrets are withheld at every level.
"""

SILENT = frozenset(
    {"delivery.delivered", "delivery.deferred", "delivery.bounced", "delivery.in_doubt", "journal.replayed"}
)
"""Events that are named, and that nobody logs yet."""


def events(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Every event with what its line says."""
    body = _class(tree, "Event").body
    for node, doc in pairwise(body):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            assert isinstance(doc, ast.Expr), f"{node.value.value}: no docstring under it"
            assert isinstance(doc.value, ast.Constant), f"{node.value.value}: no docstring under it"
            yield str(node.value.value), str(doc.value.value)


def metrics(tree: ast.Module, name: str) -> Iterator[tuple[str, str, str, str]]:
    """Every metric of a class: its attribute, name, help and labels."""
    for node in ast.walk(_class(tree, name)):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and len(node.value.args) >= 2:
            target, (metric, told, *labels) = node.targets[0], node.value.args
            assert isinstance(target, ast.Attribute)
            names = ast.literal_eval(labels[0]) if labels else []
            yield target.attr, ast.literal_eval(metric), ast.literal_eval(told), ", ".join(names)


def page() -> str:
    """The whole page."""
    tree = parse()
    lines = [_HEAD, "## Events", "", "| event | fields, and what it tells |", "|---|---|"]
    lines += [
        f"| `{event}` | {' '.join(doc.split())}{' Not logged yet.' if event in SILENT else ''} |"
        for event, doc in events(tree)
    ]
    lines += ["", "## Metrics", "", "Of a process; on the node's page with the label `process`.", ""]
    lines += ["| metric | labels | what it is |", "|---|---|---|"]
    lines += [f"| `{metric}` | {labels} | {told} |" for _, metric, told, labels in metrics(tree, "Metrics")]
    lines += [
        "",
        "Of a node, on its own page (`[metrics]`):",
        "",
        "| metric | labels | what it is |",
        "|---|---|---|",
    ]
    lines += [
        f"| `{metric}` | {labels} | {told} |" for _, metric, told, labels in metrics(tree, "NodeMetrics")
    ]
    lines += [
        "",
        "Beside these the usual ones of a process: `process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_open_fds` …",
    ]
    return "\n".join(lines) + "\n"


def parse() -> ast.Module:
    """The catalogue's source."""
    return ast.parse(_SOURCE.read_text(encoding="utf-8"))


def _class(tree: ast.Module, name: str) -> ast.ClassDef:
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
