"""The metrics of several processes on one page, in the text format of Prometheus. Pure.

Owns the joining alone: every sample of a process gets the label `process`, and the samples of one metric stand together under one heading,
as the format (https://prometheus.io/docs/instrumenting/exposition_formats/) demands. Must not know what is measured.
"""

from __future__ import annotations

from collections.abc import Iterable


def join_pages(pages: Iterable[tuple[str, str]]) -> str:
    """Join pages, each given with the name of its process; under an empty name samples stay as they are."""
    headings: dict[str, dict[str, str]] = {}  # metric → HELP and TYPE → the first line of each
    samples: dict[str, list[str]] = {}
    for process, page in pages:
        metric = ""
        for line in page.split("\n"):
            if line.startswith(("# HELP ", "# TYPE ")):
                _, kind, metric, *_ = line.split(" ", 3)
                headings.setdefault(metric, {}).setdefault(kind, line)
            elif line and not line.startswith("#"):
                samples.setdefault(metric, []).append(_labelled(line, process))
    out: list[str] = []
    for metric, lines in samples.items():
        out += [*headings.get(metric, {}).values(), *lines]
    return "\n".join(out) + "\n" if out else ""


def _labelled(sample: str, process: str) -> str:
    if not process:
        return sample
    label = f'process="{process}"'
    name, brace, rest = sample.partition("{")
    if brace and " " not in name:
        return f"{name}{{{label}{rest}" if rest.startswith("}") else f"{name}{{{label},{rest}"
    name, _, value = sample.partition(" ")
    return f"{name}{{{label}}} {value}"
