"""The plot of the README: CPU a message as stacked bars, one a scenario, with one RSA-2048 signature as a line. Pure.

Hand-written SVG, legible on white and on black. Must not know where the figures come from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

PARTS: Final = (("gateway", "#2f6fb0"), ("Postgres", "#e08a2e"), ("receiver", "#9aa0a6"))
_WIDTH: Final = 860
_LEFT: Final = 150
_RIGHT: Final = 190
_TOP: Final = 44
_ROW: Final = 30
_BAR: Final = 18
_BOTTOM: Final = 40
_INK: Final = "#6b7280"
_LEAST: Final = 1e-9
_MARK: Final = "#c0392b"


class Bar(NamedTuple):
    """One bar: its name, its parts in milliseconds (those of `PARTS`), and what is said behind it."""

    name: str
    parts_ms: tuple[float, ...]
    said: str = ""


def svg(bars: Sequence[Bar], signature_ms: float) -> str:
    """The picture: bars from top to bottom in this order, and a line at the cost of one signature."""
    longest = max((sum(bar.parts_ms) for bar in bars), default=0.0)
    step = step_of(max(longest, signature_ms))
    most = step * math.ceil(max(longest, signature_ms, step) / step)
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    foot = _TOP + _ROW * len(bars)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{foot + _BOTTOM}" '
        f'viewBox="0 0 {_WIDTH} {foot + _BOTTOM}" font-family="system-ui, sans-serif" font-size="12" fill="{_INK}">',
        "<title>Milliseconds of CPU a message, by scenario</title>",
    ]
    lines += _legend()
    for number in range(round(most / step) + 1):
        x = _LEFT + number * step * scale
        lines.append(f'<path d="M{x:.1f} {_TOP}V{foot}" stroke="{_INK}" stroke-opacity="0.25"/>')
        lines.append(f'<text x="{x:.1f}" y="{foot + 16}" text-anchor="middle">{number * step:g}</text>')
    lines.append(f'<text x="{_LEFT}" y="{foot + 33}">milliseconds of CPU a message</text>')
    for row, bar in enumerate(bars):
        lines += _bar(bar, _TOP + row * _ROW, scale)
    if signature_ms:
        x = _LEFT + signature_ms * scale
        lines.append(
            f'<path d="M{x:.1f} {_TOP - 6}V{foot}" stroke="{_MARK}" stroke-width="1.5" stroke-dasharray="5 3"/>'
        )
        lines.append(
            f'<text x="{x:.1f}" y="{_TOP - 10}" text-anchor="middle" fill="{_MARK}">one RSA-2048 signature</text>'
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


def step_of(most: float) -> float:
    """The distance of the marks of an axis: 1, 2 or 5 times a power of ten, so that there are 4 to 10 of them."""
    if most < _LEAST:
        return 1.0
    power = 10.0 ** math.floor(math.log10(most / 4))
    return next(factor * power for factor in (5, 2, 1) if factor * power <= most / 4)


def _bar(bar: Bar, top: float, scale: float) -> list[str]:
    y = top + (_ROW - _BAR) / 2
    lines = [f'<text x="{_LEFT - 8}" y="{y + 13:g}" text-anchor="end">{escape(bar.name)}</text>']
    x = float(_LEFT)
    for (part, colour), ms in zip(PARTS, bar.parts_ms, strict=True):
        lines.append(
            f'<rect x="{x:.1f}" y="{y:g}" width="{ms * scale:.1f}" height="{_BAR}" fill="{colour}">'
            f"<title>{escape(bar.name)}, {part}: {ms:.3f} ms</title></rect>"
        )
        x += ms * scale
    lines.append(f'<text x="{x + 6:.1f}" y="{y + 13:g}">{escape(bar.said)}</text>')
    return lines


def _legend() -> list[str]:
    lines: list[str] = []
    for number, (part, colour) in enumerate(PARTS):
        x = _LEFT + number * 90
        lines.append(f'<rect x="{x}" y="6" width="10" height="10" fill="{colour}"/>')
        lines.append(f'<text x="{x + 15}" y="15">{part}</text>')
    return lines
