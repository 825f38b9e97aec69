"""Places of those who follow: bounded in all and for each key, and given back."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from gateway.api import followers as followers_module
from gateway.api.followers import Followers
from gateway.errors import RateLimited


def test_a_key_takes_no_more_than_its_places_and_leaves_others_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(followers_module, "PER_KEY_MAX", 2)
    monkeypatch.setattr(followers_module, "FOLLOWERS_MAX", 3)
    followers = Followers()
    with ExitStack() as held:
        held.enter_context(followers.place(1))
        held.enter_context(followers.place(1))
        with (
            pytest.raises(RateLimited, match="2 clients follow broadcasts with this key"),
            followers.place(1),
        ):
            pass
        with (
            followers.place(2),
            pytest.raises(RateLimited, match="3 clients follow broadcasts here"),
            followers.place(3),
        ):
            pass
        with followers.place(3):
            assert len(followers) == 3
    assert len(followers) == 0


def test_a_place_is_given_back_by_what_goes_wrong() -> None:
    followers = Followers()
    with pytest.raises(ValueError, match="wrong"), followers.place(1):
        raise ValueError("wrong")
    assert len(followers) == 0
