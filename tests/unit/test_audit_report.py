"""What CI makes of pip-audit's answer: a network that is not there fails nothing, a vulnerability does."""

from __future__ import annotations

import json

import pytest

from tools.audit_report import CLEAN, NO_ANSWER, VULNERABLE, report

KNOWN = {"name": "uvicorn", "version": "1.0", "vulns": []}
UNKNOWN = {"name": "delivery", "skip_reason": "not found"}
HURT = {
    "name": "urllib3", "version": "1.24.1",
    "vulns": [{"id": "PYSEC-2019-133", "fix_versions": ["1.24.2"]}, {"id": "PYSEC-1", "fix_versions": []}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("listed", "status", "says"),
    [
        ([KNOWN], CLEAN, ["audit: 1 packages, 0 known vulnerabilities"]),
        ([UNKNOWN, UNKNOWN], NO_ANSWER, []),
        ([], NO_ANSWER, []),
        (
            [KNOWN, UNKNOWN],
            CLEAN,
            ["audit: the service does not know 1: delivery", "audit: 1 packages, 0 known vulnerabilities"],
        ),
        (
            [KNOWN, HURT],
            VULNERABLE,
            [
                "audit: urllib3 1.24.1: PYSEC-2019-133, mended in 1.24.2",
                "audit: urllib3 1.24.1: PYSEC-1, mended in no release yet",
                "audit: 2 packages, 2 known vulnerabilities",
            ],
        ),
    ],
)
def test_says_what_was_found(listed: list[object], status: int, says: list[str]) -> None:
    assert report(json.dumps({"dependencies": listed, "fixes": []})) == (status, says)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_a_file_without_an_answer_is_none(text: str) -> None:
    assert report(text) == (NO_ANSWER, [])
