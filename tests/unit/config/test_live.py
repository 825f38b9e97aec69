"""Which keys change without a restart: the file says it, and only they are taken."""

from pathlib import Path

import msgspec

from gateway.config import ApiConfig, Config, DispatchConfig, RetryConfig, RouteConfig
from gateway.config.live import LIVE, in_force, is_live
from gateway.config.strict_toml import known_keys

SHIPPED = Path(__file__).parents[3] / "config" / "gateway.toml"
MARK = "# From here to the end of this section: live."


def test_the_shipped_file_says_of_each_key_whether_it_is_live() -> None:
    sections = SHIPPED.read_text().split("\n[")
    live: set[tuple[str, str]] = set()
    for text in sections:
        name = text.partition("]")[0]
        if name not in known_keys(Config):
            continue
        if text.partition("\n")[2].startswith("# Live."):
            live |= {(name, key) for key in known_keys(Config, (name,))}
        elif MARK in text:
            after = text.split(MARK)[1].splitlines()
            live |= {(name, line.split(" = ")[0]) for line in after if line and not line.startswith("#")}
    assert live == LIVE


def test_only_live_keys_are_taken_while_it_runs() -> None:
    started = Config()
    wanted = Config(
        api=ApiConfig(port=9_000),
        dispatch=DispatchConfig(in_flight=7, urgent_reserve=3, tls="require"),
        route=RouteConfig(domains={"a.example": "b:25"}),
        retry=RetryConfig(greylist_s=(1.0,)),
    )
    held = in_force(started, wanted)
    assert held == msgspec.structs.replace(
        started,
        dispatch=DispatchConfig(tls="require"),
        route=wanted.route,
        retry=wanted.retry,
    )
    assert in_force(wanted, wanted) == wanted


def test_an_entry_of_a_live_table_is_live() -> None:
    assert is_live(("route", "domains", "a.example"))
    assert not is_live(("api", "port"))
