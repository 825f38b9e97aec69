"""The world: who is answered how. Tables for what is promised, Hypothesis for what holds for every address."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load.world import BEHAVIOURS, DEFAULT_SHARES, Act, WorldError, load, named

ADDRESSES = st.builds(
    lambda local, domain: f"{local}@{domain}.test".encode(),
    st.text("abcdefghijklmnopqrstuvwxyz0123456789.+-_", min_size=1, max_size=20),
    st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=20),
)
DEFAULT = named("default", seed=7)


@pytest.mark.parametrize(
    ("recipient", "codes"),
    [
        (b"ok@x", [250, 250]),
        (b"grey1.ann@x", [451, 250, 250]),
        (b"grey2+1@x", [451, 451, 250]),
        (b"rate421@x", [421, 250]),
        (b"rate450@x", [450, 250]),
        (b"full@x", [452, 452, 250]),
        (b"unknown.bob@x", [550, 550, 550]),
        (b"policy@x", [554, 554, 554]),
    ],
)
def test_prefix_forces_codes_by_try(recipient: bytes, codes: list[int]) -> None:
    for world in (DEFAULT, named("accept")):
        assert [world.answer(recipient, tries).code for tries in range(len(codes))] == codes


@pytest.mark.parametrize(
    ("recipient", "act"),
    [
        (b"dropdot@x", Act.DROP_TAKEN),
        (b"lostdot@x", Act.DROP_LOST),
        (b"dropdata@x", Act.DROP_DATA),
        (b"hang@x", Act.HANG),
        (b"resetafter@x", Act.RESET),
        (b"badreply@x", Act.BAD_REPLY),
    ],
)
def test_connection_faults_happen_on_the_first_try_only(recipient: bytes, act: Act) -> None:
    assert DEFAULT.answer(recipient, 0).act is act
    assert DEFAULT.answer(recipient, 1).act is Act.ACCEPT


def test_slow_takes_its_milliseconds_from_the_prefix() -> None:
    answer = DEFAULT.answer(b"slow250.ann@x", 3)
    assert (answer.act, answer.code, answer.delay_s) == (Act.ACCEPT, 250, 0.25)


@pytest.mark.parametrize(
    "recipient", [b"okay@x", b"slow@x", b"slowest@x", b"ann.grey1@x", b"@", b"", b"postmaster"]
)
def test_what_is_no_prefix_forces_nothing(recipient: bytes) -> None:
    assert named("accept").script(recipient) == BEHAVIOURS["ok"]


@given(ADDRESSES, st.integers(0, 2**64 - 1), st.integers(0, 1000))
def test_answers_are_a_function_of_recipient_tries_and_seed(recipient: bytes, seed: int, tries: int) -> None:
    assert named("default", seed).answer(recipient, tries) == named("default", seed).answer(recipient, tries)


@given(ADDRESSES, st.integers(0, 2**64 - 1))
def test_the_default_world_settles(recipient: bytes, seed: int) -> None:
    """From the third retry on nothing changes: taken, or refused for ever with a 5xx."""
    late = named("default", seed).answer(recipient, 3)
    assert late == named("default", seed).answer(recipient, 100)
    assert late.code == 250 or 500 <= late.code < 600


@given(ADDRESSES)
def test_replies_are_whole_lines_with_their_code(recipient: bytes) -> None:
    for answer in DEFAULT.script(recipient):
        assert b"\r" not in answer.reply
        assert b"\n" not in answer.reply
        assert not answer.reply or answer.reply.startswith(b"%d " % answer.code)


def test_default_shares_are_drawn_as_said() -> None:
    drawn = Counter(DEFAULT.script(b"p%d@example.test" % number) for number in range(100_000))
    for name, share in DEFAULT_SHARES.items():
        assert drawn[BEHAVIOURS[name]] / 100_000 == pytest.approx(share, abs=0.002), name


def test_half_of_the_lost_dots_were_taken() -> None:
    assert DEFAULT_SHARES["dropdot"] == DEFAULT_SHARES["lostdot"] > 0


def test_seeds_draw_other_recipients() -> None:
    recipients = [b"p%d@example.test" % number for number in range(2_000)]
    other = named("default", seed=8)
    assert [DEFAULT.script(r) for r in recipients] != [other.script(r) for r in recipients]


WORLD_FILE = """
[shares]
grey1 = 1.0

[[domain]]
name = "Busy.test"
always = "rate421"

[[domain]]
name = "calm.test"
shares = {}

[[domain]]
name = "closed.test"
address = "127.0.0.2"
ehlo = "554 5.7.1 not you"
"""


@pytest.mark.parametrize(
    ("recipient", "codes"),
    [
        (b"ann@else.test", [451, 250]),  # the world's shares
        (b"ann@busy.test", [421, 421]),  # always: at every try
        (b"ok@busy.test", [421, 421]),  # always goes before a prefix
        (b"ann@calm.test", [250, 250]),  # the domain's shares go before the world's
        (b"unknown@calm.test", [550, 550]),  # a prefix goes before shares
        (b"ann@closed.test", [451, 250]),  # an address of its own changes EHLO, not the recipients
    ],
)
def test_world_file_rules_by_precedence(recipient: bytes, codes: list[int]) -> None:
    world = load(WORLD_FILE)
    assert [world.answer(recipient, tries).code for tries in range(2)] == codes


def test_world_file_doors() -> None:
    world = load(WORLD_FILE)
    assert world.doors == {"127.0.0.2": b"554 5.7.1 not you"}
    assert world.ehlo == b""
    assert load('ehlo = "421 4.3.2 later"').ehlo == b"421 4.3.2 later"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[shares]\ngrey3 = 0.1", "did you mean grey"),
        ("[share]\ngrey1 = 0.1", "did you mean shares"),
        ("[shares]\ngrey1 = 1.5", "say 0 to 1"),
        ("[shares]\ngrey1 = true", "say a number"),
        ("[shares]\ngrey1 = 0.6\ngrey2 = 0.6", "add up to 1.2"),
        ("[[domain]]\nalways = 'ok'", "needs a name"),
        ("[[domain]]\nname = 'x'\nehlo = '554 no'", "needs an address"),
        ("[domain]\nname = 'x'", "[[domain]]"),
        ("ehlo = 'go away'", "say a reply"),
        ("shares =", "not TOML"),
    ],
)
def test_world_file_errors_say_what_would_be_right(text: str, says: str) -> None:
    with pytest.raises(WorldError) as caught:
        load(text)
    assert says in str(caught.value)


def test_unknown_world_is_refused_by_name() -> None:
    with pytest.raises(WorldError, match="did you mean default"):
        named("defualt")
