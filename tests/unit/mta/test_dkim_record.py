"""Whether a published key record is the one that was asked for."""

from __future__ import annotations

import pytest

from gateway.mta.dkim_record import RecordState, check_record, tags
from gateway.mta.mx_plan import Absent, Found, Unanswered

EXPECTED = "v=DKIM1; k=rsa; p=MIIBIjAN"


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ((EXPECTED,), RecordState.FOUND),
        (("v=DKIM1;k=rsa;p=MIIB IjAN",), RecordState.FOUND),
        (("p=MIIBIjAN; v=DKIM1; t=s;",), RecordState.FOUND),
        (("p=MIIBIjAN",), RecordState.FOUND),
        ((EXPECTED, "v=spf1 -all"), RecordState.FOUND),
        (("v=DKIM1; k=ed25519; p=MIIBIjAN",), RecordState.OTHER),
        (("v=DKIM1; k=rsa; p=MIIBIjAM",), RecordState.OTHER),
        (("v=DKIM1; k=rsa; p=",), RecordState.OTHER),
        ((EXPECTED, "v=DKIM1; p=other"), RecordState.OTHER),
        ((EXPECTED, EXPECTED), RecordState.OTHER),
        (("v=spf1 -all",), RecordState.OTHER),
        (("",), RecordState.OTHER),
    ],
)
def test_a_record_counts_by_what_it_means(values: tuple[str, ...], state: RecordState) -> None:
    assert check_record(EXPECTED, Found(values, 60)).state is state


def test_nothing_there_is_told_from_no_answer() -> None:
    assert check_record(EXPECTED, Absent(name_exists=False)).state is RecordState.MISSING
    check = check_record(EXPECTED, Unanswered("SERVFAIL"))
    assert (check.state, check.why) == (RecordState.UNANSWERED, "SERVFAIL")


def test_tags_are_read_as_dkim_reads_them() -> None:
    assert tags(" v = DKIM1 ; p=AB\r\n CD; p=second;;x") == {"v": "DKIM1", "p": "ABCD"}
