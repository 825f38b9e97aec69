"""Real replies of many receivers: what suppresses must be right, the rest mostly.

Reads the shared corpus (785 labelled replies) where it is there; `SAMPLE` always. Judged by the built-in tables
alone, and with the rules of `config/bounces.toml`.
"""

import csv
from pathlib import Path

import pytest

from gateway.model.disposition import BounceClass, Stage
from gateway.mta.bounce_rules import BounceRules, load_bounces
from gateway.mta.reply import parse_reply

CORPUS = Path(__file__).parents[3] / "shared" / "corpora" / "smtp-replies" / "replies.tsv"
CLASSES = {
    "invalid": {BounceClass.INVALID},
    "mailbox": {BounceClass.MAILBOX_FULL, BounceClass.UNKNOWN, BounceClass.POLICY, BounceClass.INVALID},
    "policy": {BounceClass.POLICY, BounceClass.SPAM, BounceClass.AUTH, BounceClass.RATE, BounceClass.GREYLIST},
    "rate": {BounceClass.RATE},
    "content": {BounceClass.CONTENT, BounceClass.SIZE, BounceClass.PROTOCOL},
    "transient": {BounceClass.CONNECTION, BounceClass.TIMEOUT, BounceClass.UNKNOWN, BounceClass.EXPIRED, BounceClass.PROTOCOL},
}  # fmt: skip


SHIPPED = load_bounces(Path(__file__).parents[2] / "config" / "bounces.toml")


def classify_line(line: str, rules: BounceRules = SHIPPED) -> BounceClass:
    stage = Stage.MAIL if "MAIL FROM command" in line or "[MAIL_FROM]" in line else Stage.RCPT
    return rules.judge(parse_reply([line.encode()]), stage).bounce_class


SAMPLE = [
    (
        "550 5.1.1 <a@example.com>: Recipient address rejected: User unknown in local recipient table",
        "invalid",
    ),
    ("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", "invalid"),
    ("554 delivery error: dd This user doesn't have a yahoo.com account (a@example.com) [0]", "invalid"),
    ("550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302).", "invalid"),
    ("552 5.2.2 <a@example.com>: Recipient address rejected: Mailbox full", "mailbox"),
    (
        "550 5.2.1 The email account that you tried to reach is inactive. For more information, go to",
        "mailbox",
    ),
    ("550 5.7.1 Mail from IP 192.0.2.1 was rejected due to listing in Spamhaus SBL.", "policy"),
    (
        "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints",
        "policy",
    ),
    (
        "451 4.7.652 The mail server [192.0.2.1] has exceeded the maximum number of connections. (S3115)",
        "rate",
    ),
    ("552 5.3.4 The size of your message exceeded Google's message size limits of limit bytes.", "content"),
    ("451 4.0.0 Could not load DRD for domain (a@example.com)", "transient"),
]


@pytest.mark.parametrize(("line", "group"), SAMPLE)
def test_sample(line: str, group: str) -> None:
    assert classify_line(line) in CLASSES[group]


@pytest.mark.skipif(not CORPUS.exists(), reason="the shared corpus is not here")
@pytest.mark.parametrize(
    ("rules", "least_right", "least_found"),
    [(BounceRules(), 0.90, 0.87), (SHIPPED, 0.93, 0.87)],
    ids=["built-in", "with bounces.toml"],
)
def test_corpus_of_whole_replies(rules: BounceRules, least_right: float, least_found: float) -> None:
    with CORPUS.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    right = total = hard = found = 0
    wrongly_invalid: list[str] = []
    for row in rows:
        if (
            row["kind"] not in ("full", "doc")
            or row["group"] not in CLASSES
            or not row["reply"][:3].isdigit()
        ):
            continue  # fragments and DSN texts are no replies
        bounce_class = classify_line(row["reply"], rules)
        total += 1
        right += bounce_class in CLASSES[row["group"]]
        if row["category_accept"] == "hard":
            hard += 1
            found += bounce_class is BounceClass.INVALID
        elif bounce_class is BounceClass.INVALID and "hard" not in row["category_accept"]:
            wrongly_invalid.append(row["reply"])
    assert wrongly_invalid == []  # the one that must never happen: it would suppress a living address
    assert right / total >= least_right, f"{right} of {total}"
    assert found / hard >= least_found, f"{found} of {hard}"
