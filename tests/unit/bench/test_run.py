from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench.load.run import AS_NAMED, DELAY, MOST_RSS, RATIO, SENT, described, figures, quantity
from bench.load.scenario import ALGORITHMS, DELAYED, HEADLINE, SCENARIOS, UNDELAYED, Scenario, chosen, small
from bench.load.signing import sections
from bench.load.way import Run
from gateway.config import Config
from gateway.dispatch.signers import platform_signer

BY_NAME = {one.name: one for one in SCENARIOS}


def a_run(rate: float = 1_300.0, ratio: float = 2.5, rss: float = 60.0) -> Run:
    return Run(
        messages_per_s=rate, enqueued_per_s=40_000.0, gateway_ms=ratio * 0.2, postgres_ms=ratio * 0.05, enqueue_ms=0.02,
        sink_ms=0.1, rsa_ms=0.25, rss_mib=rss, content_bytes=14_000.0,
    )  # fmt: skip


def test_scenarios_have_names_of_their_own() -> None:
    assert len(BY_NAME) == len(SCENARIOS)
    assert {HEADLINE, DELAYED, UNDELAYED} <= BY_NAME.keys()
    assert all(one.signing in ALGORITHMS for one in SCENARIOS)


def test_the_delay_is_all_that_its_two_scenarios_differ_in() -> None:
    one = msgspec.structs.replace(
        BY_NAME[DELAYED], delay_ms=0.0, name=UNDELAYED, about=BY_NAME[UNDELAYED].about
    )
    assert one == BY_NAME[UNDELAYED]
    assert one.domains * one.dispatch["connections_per_lane"] == 200
    assert one.dispatch["messages_per_connection"] == 20


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_the_gateway_takes_a_scenarios_settings(scenario: Scenario) -> None:
    config = msgspec.convert({"dispatch": scenario.dispatch}, type=Config)
    assert scenario.limits.rate_per_s * scenario.domains >= 5_000  # it is not the throttle that is measured
    assert scenario.limits.max_connections >= scenario.dispatchers * config.dispatch.connections_per_lane


def test_one_scenario_is_chosen_with_the_one_that_it_is_compared_with() -> None:
    assert [one.name for one in chosen("large")] == ["large"]
    assert {one.name for one in chosen(DELAYED)} == {DELAYED, UNDELAYED}
    assert chosen("") == list(SCENARIOS)
    with pytest.raises(ValueError, match=r'"larger".*headline'):
        chosen("larger")


def test_a_small_scenario_is_the_same_with_less_of_it() -> None:
    for scenario in SCENARIOS:
        less = small(scenario)
        assert (less.name, less.signing, less.html_bytes) == (
            scenario.name,
            scenario.signing,
            scenario.html_bytes,
        )
        assert less.messages < scenario.messages


def test_figures_say_what_was_reached() -> None:
    found = figures([BY_NAME[HEADLINE]], {HEADLINE: [a_run(), a_run(rate=1_100.0, ratio=3.5), a_run()]}, {})
    sent, ratio = found[quantity(HEADLINE, SENT)], found[quantity(HEADLINE, RATIO)]
    assert (sent.median, sent.min, sent.max) == (1_300.0, 1_100.0, 1_300.0)
    assert sent.reach is not None
    assert sent.reach.met
    assert ratio.reach is not None
    assert (ratio.reach.at_most, ratio.reach.met) == (3.0, True)
    assert DELAY not in found


def test_the_rate_with_delay_is_compared_run_by_run() -> None:
    found = figures(
        [BY_NAME[UNDELAYED], BY_NAME[DELAYED]],
        {
            UNDELAYED: [a_run(rate=1_000.0), a_run(rate=500.0)],
            DELAYED: [a_run(rate=700.0), a_run(rate=450.0)],
        },
        {},
    )
    assert found[DELAY].values == (0.7, 0.9)
    assert found[DELAY].reach is not None
    assert found[DELAY].reach.met


def test_the_most_memory_is_that_of_the_worst_scenario_in_each_run() -> None:
    runs = {HEADLINE: [a_run(rss=60.0), a_run(rss=70.0)], "large": [a_run(rss=80.0), a_run(rss=160.0)]}
    found = figures([BY_NAME[name] for name in runs], runs, {})
    assert found[MOST_RSS].values == (80.0, 160.0)


def test_a_scenario_that_was_not_what_it_says_is_missed_and_has_no_other_figure() -> None:
    found = figures([BY_NAME[HEADLINE], BY_NAME["starttls"]], {HEADLINE: [a_run()]}, {"starttls": "no TLS"})
    mine = [name for name in found if name.startswith("starttls")]
    assert mine == [quantity("starttls", AS_NAMED)]
    reach = found[mine[0]].reach
    assert reach is not None
    assert not reach.met


def test_the_settings_of_a_scenario_go_into_a_result() -> None:
    told = msgspec.json.decode(msgspec.json.encode(described(BY_NAME[DELAYED])))
    assert (told["name"], told["delay_ms"], told["dispatch"]["messages_per_connection"]) == (
        DELAYED,
        80.0,
        20,
    )


def test_one_rsa_key_needs_nothing_beside_the_defaults(tmp_path: Path) -> None:
    assert sections("rsa", tmp_path) == {}


def test_the_platforms_key_is_made_where_the_config_names_it(tmp_path: Path) -> None:
    config = msgspec.convert(sections("rsa+rsa", tmp_path), type=Config)
    signer = platform_signer(config.mail)
    assert signer is not None
    assert signer.algorithm == "rsa-sha256"
