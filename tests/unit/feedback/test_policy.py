"""Only what does not exist is suppressed."""

import itertools

import pytest

from gateway.feedback.policy import Suppression, SuppressionReason, SuppressionScope, suppresses
from gateway.model.disposition import BounceClass, Disposition, Outcome, Stage
from gateway.mta.reply import ErrorKind, classify, from_error, parse_reply


@pytest.mark.parametrize(("outcome", "bounce_class"), list(itertools.product(Outcome, BounceClass)))
def test_only_a_bounce_for_a_missing_address_suppresses(outcome: Outcome, bounce_class: BounceClass) -> None:
    wanted = outcome is Outcome.BOUNCED and bounce_class is BounceClass.INVALID
    assert (suppresses(Disposition(outcome, bounce_class, 550, None, "")) is not None) == wanted


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (b"550 5.1.1 User unknown", True),
        (b"550 5.1.2 Host unknown", True),
        (b"550 5.7.1 message rejected as spam", False),
        (b"550 5.7.26 unauthenticated", False),
        (b"550 5.1.1 blocked using a blocklist", False),
        (b"552 5.2.2 mailbox full", False),
        (b"450 4.1.1 User unknown", False),
    ],
)
def test_from_the_reply_to_the_suppression(line: bytes, wanted: bool) -> None:
    hard = Suppression(SuppressionReason.HARD_BOUNCE, SuppressionScope.ALL)
    assert suppresses(classify(parse_reply([line]), Stage.RCPT)) == (hard if wanted else None)


def test_a_domain_that_does_not_exist_suppresses_and_a_failed_look_up_does_not() -> None:
    assert suppresses(from_error(ErrorKind.NO_DOMAIN, Stage.CONNECT))
    assert suppresses(from_error(ErrorKind.NULL_MX, Stage.CONNECT))
    assert suppresses(from_error(ErrorKind.DNS_TEMPORARY, Stage.CONNECT)) is None
