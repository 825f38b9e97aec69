"""Rules for replies come first, never change an outcome, and a wrong file says where and what would be right."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.strict_toml import parse_toml
from gateway.errors import ConfigError
from gateway.feedback.policy import suppresses
from gateway.model.disposition import BounceClass, Outcome, Scope, Stage
from gateway.mta.bounce_rules import (
    MOST_RULES,
    BounceRule,
    BounceRules,
    RuledJudge,
    check_bounces,
    load_bounces,
)
from gateway.mta.reply import Reply, Ruling, classify, parse_reply

SHIPPED = Path(__file__).parents[3] / "config" / "bounces.toml"
RULE = '[[rule]]\npattern = \'hello\'\nclass = "policy"\nwhy = "a test"\n'


def load(tmp_path: Path, text: str) -> BounceRules:
    path = tmp_path / "bounces.toml"
    path.write_text(text)
    return load_bounces(path)


def refuse(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    return str(caught.value).removeprefix(f"{tmp_path}/")


def judge(rules: BounceRules, line: str, stage: Stage = Stage.RCPT) -> tuple[str, str, str]:
    disposition = rules.judge(parse_reply([line.encode()]), stage)
    return disposition.outcome.value, disposition.bounce_class.value, disposition.scope.value


def test_the_first_rule_that_fits_judges(tmp_path: Path) -> None:
    rules = load(
        tmp_path,
        "[[rule]]\npattern = 'Never Heard'\ncodes = [550, 551]\nenhanced = ['5.7.1']\nstage = ['rcpt', 'dot']\nclass = 'spam'\n"
        "why = 'a'\n[[rule]]\npattern = 'never'\nclass = 'content'\nscope = 'lane'\nwhy = 'b'\n",
    )
    assert judge(rules, "550 5.7.1 NEVER HEARD of it") == ("bounced", "spam", "recipient")
    assert judge(rules, "551 5.7.1 never heard", Stage.DOT) == ("bounced", "spam", "recipient")
    assert judge(rules, "552 5.7.1 never heard") == ("bounced", "content", "recipient")
    assert judge(rules, "550 5.7.2 never heard") == ("bounced", "content", "recipient")
    assert judge(rules, "550 never heard") == ("bounced", "content", "recipient")
    assert judge(rules, "550 5.7.1 never heard", Stage.DATA) == ("bounced", "content", "recipient")
    assert judge(rules, "450 never") == ("deferred", "content", "lane")
    assert judge(rules, "550 5.1.1 no such user") == ("bounced", "invalid", "recipient")
    assert judge(rules, "250 never", Stage.DOT) == ("delivered", "ok", "recipient")
    assert rules.match(Reply(250, None, "never"), Stage.DOT) is None


def test_without_rules_nothing_changes() -> None:
    assert BounceRules().judge(Reply(450, None, "x"), Stage.RCPT) == classify(
        Reply(450, None, "x"), Stage.RCPT
    )


def test_a_scope_is_said_of_deferrals_after_mail_alone(tmp_path: Path) -> None:
    lane, recipient = (load(tmp_path, RULE + f'scope = "{scope}"\n') for scope in ("lane", "recipient"))
    assert judge(lane, "451 hello")[2] == "lane"
    assert judge(lane, "550 hello") == ("bounced", "policy", "recipient")
    assert judge(recipient, "421 hello")[2] == "recipient"
    assert judge(recipient, "554 hello", Stage.BANNER) == ("deferred", "policy", "lane")
    unsaid = load(tmp_path, RULE.replace("policy", "rate"))
    assert judge(unsaid, "451 hello") == ("deferred", "rate", "lane")
    assert judge(unsaid, "450 4.2.1 hello") == ("deferred", "rate", "recipient")  # one mailbox only


def test_a_rule_suppresses_only_by_a_permanent_reply_of_the_recipient(tmp_path: Path) -> None:
    rules = load(tmp_path, RULE.replace("policy", "invalid") + "codes = [550, 552]\n")
    assert judge(rules, "550 hello") == ("bounced", "invalid", "recipient")
    assert judge(rules, "550 hello", Stage.MAIL) == ("bounced", "policy", "recipient")
    assert judge(rules, "550 hello", Stage.BANNER) == ("deferred", "policy", "lane")
    assert judge(rules, "552 hello, too many recipients") == ("deferred", "rate", "recipient")
    by_enhanced = load(tmp_path, RULE.replace("policy", "invalid") + 'enhanced = ["5.4.1"]\n')
    assert judge(by_enhanced, "450 5.4.1 hello") == ("deferred", "unknown", "recipient")


@given(
    st.integers(200, 599),
    st.sampled_from([*Stage]),
    st.sampled_from([None, "5.1.1", "4.1.1", "5.7.1", "4.2.2", "5.5.3", "4.7.28"]),
    st.sampled_from(["", "user unknown", "spam", "too many recipients", "mailbox full"]),
    st.sampled_from([*BounceClass]),
    st.sampled_from([None, *Scope]),
)
def test_no_ruling_changes_an_outcome(
    code: int, stage: Stage, enhanced: str | None, text: str, bounce_class: BounceClass, scope: Scope | None
) -> None:
    reply = Reply(code, enhanced, text)
    ruled = classify(reply, stage, Ruling(bounce_class, scope))
    assert ruled.outcome is classify(reply, stage).outcome
    if ruled.bounce_class is BounceClass.INVALID:
        assert ruled.outcome is Outcome.BOUNCED
        assert stage in (Stage.RCPT, Stage.DATA, Stage.DOT)
    if ruled.scope is Scope.LANE:
        assert ruled.outcome is Outcome.DEFERRED
    if code < 400:
        assert ruled == classify(reply, stage)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (RULE + RULE + 'cods = [550]', 'bounces.toml:9: rule.2.cods: unknown key; did you mean "codes"?'),
        (RULE + '\n[[rules]]\npattern = "x"', 'bounces.toml:6: rules: unknown table; did you mean "rule"?'),
        (RULE.replace("[[rule]]", "[rule]"), "bounces.toml:1: rule: expected rules; write [[rule]], with two brackets"),
        ("rule = 3", "bounces.toml:1: rule: expected rules"),
        (RULE + RULE.replace("policy", "plicy"), 'bounces.toml:7: rule.2.class: no value "plicy"; did you mean "policy"?'),
        (RULE + "stage = ['dot', 'rctp']", 'bounces.toml:5: rule.1.stage: no value "rctp"; did you mean "rcpt"?'),
        (RULE + "scope = 'fleet'", 'bounces.toml:5: rule.1.scope: no value "fleet"; known are recipient, lane'),
        (RULE + "codes = [250]", "bounces.toml:5: rule.1.codes: expected int >= 400"),
        (RULE + "codes = 550", "bounces.toml:5: rule.1.codes: expected array, got int; a list, in [brackets]"),
        (RULE + "enhanced = ['5.1']", "bounces.toml:5: rule.1.enhanced: expected str matching regex"),
        ("[[rule]]\npattern = 'x'\nclass = 'spam'", "bounces.toml:1: rule.1: missing key why"),
        (RULE.replace("hello", "x" * 201), "bounces.toml:2: rule.1.pattern: expected str of length <= 200"),
        (RULE.replace("hello", "(hello"), "bounces.toml:2: rule.1.pattern: no regular expression: missing )"),
        (RULE.replace("hello", "(h+)+"), "bounces.toml:2: rule.1.pattern: repeats a group that has repeats"),
        (RULE.replace("hello", ".*hello.*x"), "bounces.toml:2: rule.1.pattern: could take too long"),
        (RULE.replace("hello", "x?"), "bounces.toml:2: rule.1.pattern: matches every reply; name codes"),
        (RULE.replace("hello", "^550.{0,9}blocked"), "bounces.toml:2: rule.1.pattern: would never match: the text"),
        (RULE.replace("hello", "^(?:451|550) x"), "bounces.toml:2: rule.1.pattern: would never match"),
        (RULE.replace("hello", r"^\d{3} x"), "bounces.toml:2: rule.1.pattern: would never match"),
        (RULE.replace("hello", r"^[45]\d{2} x"), "bounces.toml:2: rule.1.pattern: would never match"),
        (RULE.replace("hello", r"^5\.7\.1 x"), "bounces.toml:2: rule.1.pattern: would never match"),
        (RULE.replace("policy", "ok"), 'bounces.toml:3: rule.1.class: "ok" is what was delivered'),
        (RULE.replace("policy", "invalid"), 'bounces.toml:3: rule.1.class: "invalid" suppresses addresses'),
        (RULE.replace("policy", "invalid") + "codes = [450, 550]", 'bounces.toml:3: rule.1.class: "invalid" suppresses'),
        (RULE.replace("policy", "invalid") + "codes = [550]\nenhanced = ['4.1.1']", 'bounces.toml:3: rule.1.class: "invalid"'),
        (RULE * (MOST_RULES + 1), "bounces.toml:1: rule: 201 rules; at most 200"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_line_key_and_what_would_be_right(
    tmp_path: Path, text: str, says: str
) -> None:
    assert refuse(tmp_path, text).startswith(says)


def test_every_mistake_is_told_by_line() -> None:
    wrong = (
        RULE.replace("policy", "plicy")
        + "codes = [250]\n"
        + RULE.replace("hello", "(")
        + "[other]\n"
        + "[[rule]]\nwhy = 'x'\n"
    )
    rules, errors = check_bounces(parse_toml(Path("b.toml"), RULE + wrong))
    assert [(error.line, error.key) for error in errors] == [
        (7, "rule.2.class"),
        (9, "rule.2.codes"),
        (11, "rule.3.pattern"),
        (14, "other"),
        (15, "rule.4"),
    ]
    assert rules.rule[0].pattern == "hello"


def test_an_empty_file_has_no_rules(tmp_path: Path) -> None:
    assert load(tmp_path, "# nothing yet\n") == BounceRules()


def test_a_pattern_for_any_text_is_fine_beside_codes(tmp_path: Path) -> None:
    rules = load(tmp_path, RULE.replace("hello", "^") + "codes = [571]\n")
    assert judge(rules, "571")[1] == "policy"


def test_rules_can_be_replaced_under_a_session() -> None:
    judging = RuledJudge(BounceRules())
    reply = Reply(550, None, "hello")
    assert judging(reply, Stage.DOT).bounce_class is BounceClass.UNKNOWN
    judging.rules = BounceRules((BounceRule(pattern="hello", bounce_class=BounceClass.SPAM, why="a test"),))
    assert judging(reply, Stage.DOT).bounce_class is BounceClass.SPAM


# Replies as the shared corpus has them: the sample sets and provider tables of sisimai 5.3.0 (BSD-2-Clause) and KumoMTA's
# bounces.toml; what the built-in tables take each for, and what the shipped rule makes of it.
SHIPPED_CASES = [
    (1, Stage.RCPT, "421 4.7.0 Connection expired, try reconnecting. For more information, go to", "policy", "connection"),
    (2, Stage.RCPT, "452 4.5.3 Domain policy size per transaction exceeded, please try this recipient in a", "rate", "unknown"),
    (None, Stage.RCPT, "550 5.1.4 Recipient address rejected: Access denied.", "policy", "policy"),
    (3, Stage.BANNER, "421 mwinf5c77 ME Service refuse. Veuillez essayer plus tard. OFR_999 [999]", "connection", "policy"),
    (4, Stage.BANNER, "554 IP=192.0.2.254 - A problem occurred. (Ask your postmaster for help) (BL)", "policy", "spam"),
    (5, Stage.MAIL, "452 4.4.5 Insufficient disk space; try again later", "mailbox_full", "connection"),
    (6, Stage.RCPT, "554 INVALID IP FOR SENDING MAIL OF DOMAIN example.com", "unknown", "auth"),
    (7, Stage.MAIL, "550 Authentication required", "unknown", "policy"),
    (7, Stage.RCPT, "503 This mail server requires authentication when attempting to send to a non-local e-mail address", "protocol", "policy"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "stage", "line", "before", "after"), SHIPPED_CASES)
def test_the_shipped_rules_mend_what_they_are_for(
    number: int | None, stage: Stage, line: str, before: str, after: str
) -> None:
    rules, reply = load_bounces(SHIPPED), parse_reply([line.encode()])
    assert rules.match(reply, stage) == (None if number is None else number - 1)
    assert classify(reply, stage).bounce_class.value == before
    assert rules.judge(reply, stage).bounce_class.value == after
    assert (suppresses(rules.judge(reply, stage)) is not None) == (after == "invalid")


def test_every_shipped_rule_has_a_case() -> None:
    numbers = {number for number, *_ in SHIPPED_CASES if number is not None}
    assert numbers == set(range(1, len(load_bounces(SHIPPED).rule) + 1))


def test_every_key_and_value_stands_in_the_head_of_the_shipped_file() -> None:
    head = SHIPPED.read_text().split("[[rule]]\npattern")[0]
    for field in msgspec.structs.fields(BounceRule):
        assert f"\n#   {field.encode_name} " in head, field.encode_name
    described = head.split("and says:")[1]
    assert all(name.value in described for name in BounceClass if name is not BounceClass.OK)
    assert all(f'"{scope.value}"' in described for scope in Scope)
    # Nothing is refused in words at CONNECT, and QUIT ends no attempt.
    assert all(f'"{stage.value}"' in head for stage in Stage if stage not in (Stage.CONNECT, Stage.QUIT))
