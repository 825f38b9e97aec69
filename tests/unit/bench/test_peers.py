from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import peers, report
from bench.__main__ import main
from bench.load.ledger import Ledger
from bench.load.letters import Letter, letters
from bench.load.postfix import PACKAGES, find_programs
from bench.load.postfix_config import TUNING, Signing, main_cf, master_cf, opendkim_conf
from bench.load.run import Run
from bench.options import CannotMeasure
from bench.peers import ALONE, SIGNED, PeerRun, PeerSummary, peers_summary
from bench.report import Code, Machine, Result, figure
from gateway.mta.mime import dot_stuff

FOLDER = Path("/tmp/relay")
SIGNING = Signing("mail.site.test", "s1", b"")


def settings(text: str, separator: str) -> dict[str, str]:
    """Parameters by name; a name that stands twice is an error, since the last one would win unseen."""
    pairs = [tuple(part.strip() for part in line.split(separator, 1)) for line in text.splitlines()]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_postfix_relays_everything_to_the_receiver_and_asks_no_dns() -> None:
    main_file = settings(main_cf(FOLDER, 2525, None), "=")
    assert main_file["relayhost"] == "[127.0.0.1]:2525"
    assert main_file["smtp_dns_support_level"] == "disabled"
    assert main_file["mydestination"] == ""
    assert main_file["inet_interfaces"] == "127.0.0.1"
    assert "smtpd_milters" not in main_file
    assert TUNING.items() <= main_file.items()


def test_postfix_keeps_to_its_own_folder() -> None:
    main_file = settings(main_cf(FOLDER, 2525, None), "=")
    for name in ("queue_directory", "data_directory", "maillog_file"):
        assert Path(main_file[name]).parent == FOLDER


def test_postfix_hands_mail_to_the_milter_where_there_is_one() -> None:
    socket = FOLDER / "milter" / "socket"
    main_file = settings(main_cf(FOLDER, 2525, socket), "=")
    assert main_file["smtpd_milters"] == f"unix:{socket}"
    assert main_file["milter_default_action"] == "tempfail"  # nothing goes out unsigned
    assert settings(opendkim_conf(FOLDER, socket, SIGNING), " ")["Socket"] == f"local:{socket}"


def test_no_service_of_postfix_is_chrooted_and_one_listens_on_loopback() -> None:
    services = [line.split() for line in master_cf(2526).splitlines()]
    assert {fields[4] for fields in services} == {"n"}
    assert [fields[0] for fields in services if fields[1] == "inet"] == ["127.0.0.1:2526"]


def test_opendkim_signs_as_the_gateway_does() -> None:
    config = settings(opendkim_conf(FOLDER, FOLDER / "socket", SIGNING), " ")
    assert (config["Mode"], config["Domain"], config["Selector"]) == ("s", "mail.site.test", "s1")
    assert (config["Canonicalization"], config["SignatureAlgorithm"]) == ("relaxed/relaxed", "rsa-sha256")


def test_says_which_packages_are_missing() -> None:
    with pytest.raises(CannotMeasure) as refused:
        find_programs("/nonexistent")
    assert all(name in str(refused.value) for name in PACKAGES)
    assert "apt-get install --no-install-recommends postfix opendkim util-linux" in str(refused.value)


def test_a_missing_peer_is_exit_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "find_programs", lambda: find_programs("/nonexistent"))
    assert main(["peers", "--quick"]) == 2
    assert re.search(r"^peers: .*apt-get install", capsys.readouterr().err)


def test_letters_are_personal_and_go_over_the_domains_in_turn() -> None:
    made = letters(6, 3)
    assert len({letter.delivery for letter in made}) == 6
    for letter in made:
        assert f"X-Gateway-Delivery: {letter.delivery}\r\n".encode() in letter.content
        assert f"Hello Ann{letter.delivery}".encode() in letter.content
        assert b"DKIM-Signature" not in letter.content
        assert dot_stuff(letter.content.replace(b"\r\n..", b"\r\n.")) == letter.content
    domains = [re.findall(rb"@(d\d)\.test>", letter.envelope) for letter in made]
    assert domains[:3] == domains[3:]
    assert len({domain for found in domains[:3] for domain in found}) == 3


def test_a_mail_that_is_missing_or_came_twice_fails_the_run() -> None:
    sent = [Letter("1", b"", b""), Letter("2", b"", b"")]
    peers._require_each_once(sent, Ledger(replied={"1", "2"}))
    for ledger in (Ledger(replied={"1"}), Ledger(replied={"1", "2", "3"}),
                   Ledger(replied={"1", "2"}, duplicates={"1": 2})):  # fmt: skip
        with pytest.raises(RuntimeError, match="differ"):
            peers._require_each_once(sent, ledger)


def _gateway(all_ms: float) -> Run:
    return Run(300.0, all_ms - 0.1, 0.1, 0.2, 0.25, 60.0, 11_453.0)


def _peer(cpu_ms: float) -> PeerRun:
    return PeerRun(200.0, cpu_ms, 1.0, {"smtpd": 1.0, "opendkim": 2.0, "anvil": 0.0}, 0.2, 11_500.0)


def test_the_ratio_is_made_run_by_run_and_judged_by_the_median() -> None:
    figures = peers._figures(
        [_gateway(1.0), _gateway(2.0), _gateway(1.0)],
        {SIGNED: [_peer(6.0), _peer(14.0), _peer(5.0)], ALONE: [_peer(2.0), _peer(4.0), _peer(3.0)]},
    )
    signed = figures[f"messages per CPU-second, gateway : {SIGNED}"]
    assert signed.values == (6.0, 7.0, 5.0)
    assert signed.reach is not None
    assert (signed.reach.at_least, signed.reach.judged, signed.reach.met) == (6.0, "median", True)
    assert figures[f"messages per CPU-second, gateway : {ALONE}"].reach is None


def test_the_shares_come_by_size() -> None:
    assert peers._notes({SIGNED: [_peer(3.0)]}) == (
        f"{SIGNED} by program, ms a message: opendkim 2.000, smtpd 1.000",
    )


def test_the_summary_has_a_line_for_each_peer() -> None:
    result = Result(
        bench="peers", command="", quick=False, runs=1, started_at=report.now(), took_s=1.0,
        code=Code("abc", "now", ()), machine=Machine("cpu", 2, 1, "Linux 6.1", "3.11.0", 0.1, 0.2), settings={},
        figures=peers._figures([_gateway(0.5)], {SIGNED: [_peer(5.0)], ALONE: [_peer(2.0)]}),
    )  # fmt: skip
    assert peers_summary(result) == [PeerSummary(SIGNED, 5.0, 10.0), PeerSummary(ALONE, 2.0, 4.0)]


def test_the_summary_refuses_the_result_of_another_benchmark() -> None:
    result = Result(
        bench="run", command="", quick=False, runs=1, started_at=report.now(), took_s=1.0,
        code=Code("abc", "now", ()), machine=Machine("cpu", 2, 1, "Linux 6.1", "3.11.0", 0.1, 0.2), settings={},
        figures={"messages sent": figure([1.0], "messages/s")},
    )  # fmt: skip
    with pytest.raises(KeyError):
        peers_summary(result)
