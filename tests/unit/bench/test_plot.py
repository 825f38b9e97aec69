from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.plot import PARTS, Bar, step_of, svg

SVG = "{http://www.w3.org/2000/svg}"


def bars_of(picture: str) -> list[ET.Element]:
    return [one for one in ET.fromstring(picture).iter(f"{SVG}rect") if one.find(f"{SVG}title") is not None]


def test_parts_are_stacked_to_scale() -> None:
    picture = svg([Bar("headline", (0.4, 0.2, 0.1), "2.4 signatures")], 0.25)
    first, second, third = bars_of(picture)
    widths = [float(one.attrib["width"]) for one in (first, second, third)]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.2)
    assert float(second.attrib["x"]) == pytest.approx(float(first.attrib["x"]) + widths[0], abs=0.2)
    assert "2.4 signatures" in picture
    assert "one RSA-2048 signature" in picture


def test_names_cannot_break_the_picture() -> None:
    assert len(bars_of(svg([Bar("<a & b>", (1.0, 1.0, 1.0), "<x>")], 0.2))) == len(PARTS)


def test_a_picture_of_nothing_is_a_picture() -> None:
    assert bars_of(svg([], 0.0)) == []


@given(st.lists(st.tuples(*[st.floats(0, 1e4)] * 3), max_size=12), st.floats(0, 10))
def test_nothing_leaves_the_picture(parts: list[tuple[float, ...]], signature_ms: float) -> None:
    picture = svg([Bar(str(number), one) for number, one in enumerate(parts)], signature_ms)
    width = float(ET.fromstring(picture).attrib["width"])
    for one in bars_of(picture):
        assert 0 <= float(one.attrib["x"]) + float(one.attrib["width"]) <= width


@given(st.floats(1e-6, 1e6))
def test_an_axis_has_four_to_ten_marks(most: float) -> None:
    assert 3.99 <= most / step_of(most) <= 10.01
