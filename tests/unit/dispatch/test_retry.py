"""Each class waits as its schedule says, a little longer by chance, never shorter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import ExpiryConfig, RetryConfig
from gateway.dispatch.retry import expires_after, retry_in
from gateway.model.disposition import BounceClass, Disposition, Outcome, Scope

POLICY = RetryConfig()


def deferred(bounce_class: BounceClass, scope: Scope = Scope.RECIPIENT) -> Disposition:
    return Disposition(Outcome.DEFERRED, bounce_class, 450, None, "", scope)


@pytest.mark.parametrize(
    ("bounce_class", "minutes"),
    [
        (BounceClass.GREYLIST, [5, 15, 30, 30]),
        (BounceClass.CONNECTION, [5, 10, 20, 40, 60, 60]),
        (BounceClass.TIMEOUT, [5, 10, 20, 40, 60, 60]),
        (BounceClass.RATE, [0.5, 1, 2, 5, 10, 30, 30]),
        (BounceClass.MAILBOX_FULL, [240, 480, 720, 720]),
        (BounceClass.UNKNOWN, [30, 60, 120, 240, 360, 360]),
        (BounceClass.SPAM, [30, 60]),
    ],
)
def test_schedules(bounce_class: BounceClass, minutes: list[float]) -> None:
    waits = [retry_in(deferred(bounce_class), n, 0.0, POLICY) / 60 for n in range(1, len(minutes) + 1)]
    assert waits == minutes


@given(st.sampled_from([*BounceClass]), st.integers(0, 1_000), st.floats(0, 1, exclude_max=True))
def test_jitter_only_stretches(bounce_class: BounceClass, attempt: int, jitter: float) -> None:
    base_s = retry_in(deferred(bounce_class), attempt, 0.0, POLICY)
    assert base_s <= retry_in(deferred(bounce_class), attempt, jitter, POLICY) <= base_s * 1.2
    assert base_s <= retry_in(deferred(bounce_class), attempt + 1, 0.0, POLICY)


def test_expiry_by_stream() -> None:
    policy = ExpiryConfig()
    hours = [
        expires_after(stream, policy) / 3600 for stream in ("one_time_code", "transactional", "marketing")
    ]
    assert hours == [0.25, 48, 72]
    with pytest.raises(ValueError, match="there are transactional"):
        expires_after("bulk", policy)
