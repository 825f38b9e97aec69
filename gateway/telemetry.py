"""THE catalogue of log events and metrics, and how both are set up.

Owns every name: a log line's event is an `Event`, a metric stands in `Metrics`; nobody makes up another. Must not know
who logs. Fields go beside the event (`delivery_id`, `lane`, `attempt`, `code`), never into it.

Above DEBUG no line holds a full address: `redact` shortens whatever looks like one, and withholds bodies and secrets.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from enum import StrEnum
from typing import Any, Final, cast

import orjson
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger


class Event(StrEnum):
    """Every log event, with what it tells."""

    PROCESS_STARTED = "process.started"
    """role, pid, version."""
    PROCESS_ENDED = "process.ended"
    """role, pid, exit_code: a child that ended, wanted or not."""
    CONFIG_LOADED = "config.loaded"
    """path, changes: a file was taken while running; empty: it was mended, or asked for, and says what is in force."""
    CONFIG_REFUSED = "config.refused"
    """path, problem, in_force: a changed file was wrong; the one before stays in force."""
    CONFIG_NEEDS_RESTART = "config.needs_restart"
    """path, changes: keys that were changed and that only the next start takes."""
    CONFIG_NOT_FOLLOWED = "config.not_followed"
    """part: what failed at a changed configuration, with its trace; it goes on with what it had, the others took the change."""
    LIMITS_APPLIED = "limits.applied"
    """lanes: how many got other limits after a change of the throttles."""
    LIMITS_LATE = "limits.late"
    """error, retry_s: changed throttles could not be given to the lanes yet."""
    DISPATCHER_STARTED = "dispatcher.started"
    """incarnation."""
    DISPATCHER_STOPPED = "dispatcher.stopped"
    """incarnation, in_flight: drained, or out of grace."""
    DISPATCHER_FENCED = "dispatcher.fenced"
    """incarnation, silent_s: it could not prove its lease, and aborted what it had open."""
    CLAIM_FAILED = "claim.failed"
    """error, retry_s."""
    ACK_FAILED = "ack.failed"
    """error, backlog, retry_s."""
    LANE_SUSPENDED = "lane.suspended"
    """lane, bounce_class, wait_s, code, reply."""
    DELIVERY_DELIVERED = "delivery.delivered"
    """delivery_id, lane, attempt, code (DEBUG: there is one for every message)."""
    DELIVERY_DEFERRED = "delivery.deferred"
    """delivery_id, lane, attempt, code, enhanced, bounce_class, retry_s."""
    DELIVERY_BOUNCED = "delivery.bounced"
    """delivery_id, lane, attempt, code, enhanced, bounce_class."""
    DELIVERY_IN_DOUBT = "delivery.in_doubt"
    """delivery_id, lane, attempt, reply: what came between the dot and its reply."""
    DELIVERY_QUARANTINED = "delivery.quarantined"
    """delivery_id, claims: it was started each time a process died."""
    PEER_DEAD = "peer.dead"
    """incarnation, silent_s: another dispatcher's heartbeat stood still for a lease."""
    RESCUE_DONE = "rescue.done"
    """incarnation, queued, in_doubt: what a dead dispatcher held."""
    JOURNAL_REPLAYED = "journal.replayed"
    """incarnation, results, in_doubt, started, damaged_lines."""
    BROADCAST_STATE = "broadcast.state"
    """broadcast_id, before, after, cause."""
    IMPORT_DONE = "import.done"
    """import_id, rows, errors, duration_s."""
    API_REQUEST = "api.request"
    """method, route (the pattern, not the path), status, duration_s, request_id."""
    SUBMISSION_REFUSED = "submission.refused"
    """site_id, reply: a message that came by SMTP and was not taken."""
    SUBMISSION_FAILED = "submission.failed"
    """site_id, problem: it could not be taken for a reason of our own."""
    SIGN_IN_FAILED = "sign_in.failed"
    """peer, reply: a wrong key over SMTP."""
    LIBRARY = "library"
    """logger, message: a warning of a library that logs by itself."""


class Metrics:
    """Every Prometheus metric of a process. Bind labels once (`dispositions.labels(…)`); a bound `inc()` costs 0.3 µs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register all metrics in `registry`; once per registry."""
        self.registry = registry
        self.dispositions = Counter(
            "gateway_dispositions_total",
            "What attempts came to.",
            ["outcome", "bounce_class"],
            registry=registry,
        )
        self.claims = Counter("gateway_claims_total", "Claims made, empty ones included.", registry=registry)
        self.claimed_rows = Counter(
            "gateway_claimed_rows_total", "Deliveries taken by claims.", registry=registry
        )
        self.handed_back = Counter(
            "gateway_handed_back_total", "Deliveries handed back unsent (late, draining).", registry=registry
        )
        self.acks = Counter("gateway_acks_total", "Outcomes acknowledged to Postgres.", registry=registry)
        self.ack_backlog = Gauge("gateway_ack_backlog", "Outcomes not yet acknowledged.", registry=registry)
        self.in_flight = Gauge(
            "gateway_in_flight", "Deliveries that this dispatcher holds.", registry=registry
        )
        self.connections = Gauge("gateway_connections", "Open SMTP connections.", registry=registry)
        self.journal_bytes = Gauge("gateway_journal_bytes", "Size of the journal on disk.", registry=registry)
        self.claim_duration_s = Histogram(
            "gateway_claim_duration_seconds",
            "How long a claim took.",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0),
            registry=registry,
        )
        self.api_duration_s = Histogram(
            "gateway_api_duration_seconds",
            "How long a request took.",
            ["route", "status"],
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0),
            registry=registry,
        )


_ADDRESS: Final = re.compile(
    r"""(?:"[^"]*"|([^\s<>@,;:"'\[\]()=])[^\s<>@,;:"'\[\]()=]*)@([^\s<>@,;:"'\[\]()/]+)"""
)
_WITHHELD: Final = frozenset(
    {
        "body",
        "html",
        "content",
        "headers",
        "token",
        "authorization",
        "password",
        "secret",
        "dsn",
        "private_key",
    }
)


def redact(_logger: WrappedLogger, method: str, event: EventDict) -> MutableMapping[str, Any]:
    """Shorten addresses to `a…@domain` in every text field and withhold bodies and secrets; DEBUG keeps addresses."""
    for key, value in event.items():
        if key in _WITHHELD:
            event[key] = "[withheld]"
        elif method != "debug":
            if isinstance(value, str):
                if "@" in value:
                    event[key] = shorten_addresses(value)
            elif isinstance(value, list) and all(
                isinstance(item, str) for item in cast("list[object]", value)
            ):
                event[key] = [shorten_addresses(item) for item in cast("list[str]", value)]
            elif not isinstance(value, (int, float, bool, type(None))) and "@" in (shown := repr(value)):
                event[key] = shorten_addresses(shown)
    return event


def shorten_addresses(text: str) -> str:
    """Return `text` with the local part of each address cut to its first character."""
    return _ADDRESS.sub(r"\1…@\2", text)


def configure_logging(level: str, json: bool) -> None:
    """Send all logs to stderr: one orjson line each, or readable ones for a terminal.

    `level` is debug, info, warning or error. Libraries that use `logging` come through from WARNING on, as `LIBRARY`.

    Raises:
        ValueError: an unknown level.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"no log level {level!r}; there are debug, info, warning and error")
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    if json:
        structlog.configure(
            processors=[
                *shared,
                structlog.processors.format_exc_info,
                redact,
                structlog.processors.JSONRenderer(serializer=_dumps),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(number),
            logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer),
            cache_logger_on_first_use=True,
        )
    else:
        structlog.configure(
            processors=[
                *shared,
                structlog.processors.format_exc_info,
                redact,
                structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(number),
            logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
            cache_logger_on_first_use=True,
        )
    root = logging.getLogger()
    root.handlers[:] = [_LibraryHandler(logging.WARNING)]
    root.setLevel(logging.WARNING)


def get_logger() -> FilteringBoundLogger:
    """Return a logger that takes `Event`s: `log.info(Event.RESCUE_DONE, incarnation=7, queued=12)`."""
    return cast(FilteringBoundLogger, structlog.get_logger())


log: Final = get_logger()
"""The logger of modules that bind nothing."""


def _dumps(event: EventDict, **_: object) -> bytes:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS)


class _LibraryHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            message = f"{message}: {record.exc_info[1]!r}"
        logger = get_logger()
        write = logger.error if record.levelno >= logging.ERROR else logger.warning
        write(Event.LIBRARY, logger=record.name, message=message)
