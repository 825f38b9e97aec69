"""Log lines have catalogued names and hold no address, body or secret."""

import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry

from gateway.telemetry import Event, Metrics, configure_logging, get_logger, shorten_addresses


class Stderr:
    def __init__(self, capture: pytest.CaptureFixture[bytes]) -> None:
        self.capture = capture

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.capture.readouterr().err.splitlines()]


@pytest.fixture
def stderr(capsysbinary: pytest.CaptureFixture[bytes]) -> Iterator[Stderr]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield Stderr(capsysbinary)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_events_are_named_area_dot_what_and_documented() -> None:
    assert all(re.fullmatch(r"[a-z_]+(\.[a-z_]+)?", event.value) for event in Event)


@pytest.mark.parametrize(
    ("text", "shortened"),
    [
        ("alice@example.org", "a…@example.org"),
        (
            "<alice@example.org>: User unknown; b.c+d@x.example",
            "<a…@example.org>: User unknown; b…@x.example",
        ),
        ('"al ice"@example.org', "…@example.org"),
        ("rcpt=alice@example.org", "rcpt=a…@example.org"),
        ("no address", "no address"),
        ("@", "@"),
    ],
)
def test_addresses_are_shortened(text: str, shortened: str) -> None:
    assert shorten_addresses(text) == shortened


def test_a_line_is_json_without_addresses_bodies_or_secrets(stderr: Stderr) -> None:
    configure_logging("info", json=True)
    get_logger().info(
        Event.DELIVERY_BOUNCED,
        delivery_id=7,
        rcpt="alice@example.org",
        reply="550 <alice@example.org> unknown",
        body="Dear Alice",
        token="t0ken",
        rcpts=["alice@example.org"],
    )
    (line,) = stderr.lines()
    assert line.pop("at").endswith("Z")
    assert line == {
        "event": "delivery.bounced",
        "level": "info",
        "delivery_id": 7,
        "rcpt": "a…@example.org",
        "reply": "550 <a…@example.org> unknown",
        "body": "[withheld]",
        "token": "[withheld]",
        "rcpts": ["a…@example.org"],
    }


def test_debug_keeps_addresses_but_no_secrets_and_is_off_at_info(stderr: Stderr) -> None:
    configure_logging("info", json=True)
    get_logger().debug(Event.DELIVERY_DELIVERED, rcpt="alice@example.org")
    assert stderr.lines() == []
    configure_logging("debug", json=True)
    get_logger().debug(Event.DELIVERY_DELIVERED, rcpt="alice@example.org", secret="s")
    (line,) = stderr.lines()
    assert (line["rcpt"], line["secret"]) == ("alice@example.org", "[withheld]")


def test_exceptions_and_libraries_are_redacted_too(stderr: Stderr) -> None:
    configure_logging("info", json=True)
    try:
        raise ValueError("alice@example.org")
    except ValueError:
        get_logger().exception(Event.CLAIM_FAILED)
    logging.getLogger("mail.log").warning("from %s", "alice@example.org")
    logging.getLogger("mail.log").info("from %s", "alice@example.org")
    lines = stderr.lines()
    assert [line["event"] for line in lines] == ["claim.failed", "library"]
    assert "alice" not in json.dumps(lines)


def test_the_terminal_form_and_an_unknown_level(stderr: Stderr) -> None:
    configure_logging("info", json=False)
    get_logger().info(Event.RESCUE_DONE, incarnation=7)
    assert b"rescue.done" in stderr.capture.readouterr().err
    with pytest.raises(ValueError, match="there are debug"):
        configure_logging("loud", json=True)


def test_metrics_stand_once_in_a_registry() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.dispositions.labels("delivered", "ok").inc()
    metrics.in_flight.set(3)
    assert registry.get_sample_value("gateway_in_flight") == 3
    labels = {"outcome": "delivered", "bounce_class": "ok"}
    assert registry.get_sample_value("gateway_dispositions_total", labels) == 1
    with pytest.raises(ValueError, match="Duplicated"):
        Metrics(registry)
