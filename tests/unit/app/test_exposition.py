"""Several processes' metrics on one page that Prometheus can read."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.app.exposition import join_pages
from gateway.telemetry import Metrics

NAMES = st.text(alphabet="abcdefgh-0123456789", min_size=1, max_size=12)
VALUES = st.floats(min_value=0, max_value=1e9)
ROUTES = st.text(alphabet='ab "\\\n{},=\x85é', max_size=20)


def test_samples_of_one_metric_stand_together_under_one_heading() -> None:
    page = '# HELP a_total What.\n# TYPE a_total counter\na_total 1.0\n# HELP b B.\n# TYPE b gauge\nb{x="y z"} 2.0\n'
    assert join_pages([("one", page), ("two", page), ("", "# TYPE c gauge\nc{} 3.0\n")]).splitlines() == [
        "# HELP a_total What.",
        "# TYPE a_total counter",
        'a_total{process="one"} 1.0',
        'a_total{process="two"} 1.0',
        "# HELP b B.",
        "# TYPE b gauge",
        'b{process="one",x="y z"} 2.0',
        'b{process="two",x="y z"} 2.0',
        "# TYPE c gauge",
        "c{} 3.0",
    ]
    assert join_pages([("one", "c{} 3.0\n")]) == 'c{process="one"} 3.0\n'
    assert join_pages([]) == ""


@settings(deadline=None)
@given(st.dictionaries(NAMES, st.tuples(st.integers(0, 10**9), VALUES, ROUTES), max_size=5))
def test_a_joined_page_holds_what_its_pages_hold(processes: dict[str, tuple[int, float, str]]) -> None:
    pages: list[tuple[str, str]] = []
    for name, (claims, duration_s, route) in processes.items():
        metrics = Metrics(CollectorRegistry())
        metrics.claims.inc(claims)
        metrics.api_duration_s.labels(route, "200").observe(duration_s)
        pages.append((name, generate_latest(metrics.registry).decode()))
    alone = {
        (sample.name, *sorted({**sample.labels, "process": name}.items()), sample.value)
        for name, page in pages
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    families = list(text_string_to_metric_families(join_pages(pages)))
    together = {
        (sample.name, *sorted(sample.labels.items()), sample.value)
        for family in families
        for sample in family.samples
    }
    assert together == alone
    assert len({family.name for family in families}) == len(families)
