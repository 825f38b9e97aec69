"""When a deferred delivery is tried again, and when it is given up.

Owns the arithmetic over `[retry]` and `[expiry]`. Pure: the caller draws the jitter and adds the seconds to its own now.
Sources: docs/deliverability "Retries by class", RFC 5321 §4.5.4.1.
"""

from __future__ import annotations

from typing import Final

from gateway.config import ExpiryConfig, RetryConfig
from gateway.model.disposition import BounceClass, Disposition

ONE_TIME_CODE: Final = "one_time_code"
"""The third kind beside the two streams: worthless after some minutes."""


def retry_in(disposition: Disposition, attempt: int, jitter: float, policy: RetryConfig) -> float:
    """Return the seconds to wait after the attempt that came to `disposition`.

    `attempt` counts from 1. For scope `lane` it is how often in a row the lane was refused, and the wait is the lane's:
    no attempt of a delivery counts. `jitter` in [0, 1) stretches the wait by up to `policy.jitter_ratio`, never below
    the schedule.
    """
    schedule = _schedule(disposition.bounce_class, policy)
    return schedule[min(max(attempt, 1), len(schedule)) - 1] * (1.0 + policy.jitter_ratio * jitter)


def expires_after(stream: str, policy: ExpiryConfig) -> float:
    """Return the seconds after acceptance at which a delivery of a stream (or `ONE_TIME_CODE`) is given up.

    Raises:
        ValueError: a stream that is none of transactional, marketing, one_time_code.
    """
    match stream:
        case "transactional":
            return policy.transactional_s
        case "marketing":
            return policy.marketing_s
        case "one_time_code":
            return policy.one_time_code_s
        case _:
            raise ValueError(
                f"no expiry for stream {stream!r}; there are transactional, marketing and one_time_code"
            )


def _schedule(bounce_class: BounceClass, policy: RetryConfig) -> tuple[float, ...]:
    match bounce_class:
        case BounceClass.GREYLIST:
            return policy.greylist_s
        case BounceClass.CONNECTION | BounceClass.TIMEOUT:
            return policy.connection_s
        case BounceClass.RATE:
            return policy.rate_s
        case BounceClass.MAILBOX_FULL:
            return policy.mailbox_full_s
        case _:
            return policy.other_s
