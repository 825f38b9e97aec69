"""The story itself: a site, its domain, ten thousand contacts, a template, a broadcast, and what became of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from demo.client import Api
from demo.contacts import BAD_ROWS, make_csv
from demo.processes import ROOT, Program, ProgramError
from demo.screen import Screen
from demo.settings import write_settings
from demo.verdict import Verdict, judge
from demo.watch import Sent, Stage, watch

_SENDING_DOMAIN: Final = "news.demo.example"
_SHOWN: Final = ("delivered", "deferred", "bounced", "suppressed", "expired", "in_doubt")

_SUBJECT: Final = "{{ first_name }}, your engine is ready"
_HTML: Final = """\
<html><body>
  <h1>Hello {{ first_name }} {{ last_name }}</h1>
  <p>Everybody at {{ company }} should know: the <b>analytical engine</b> is ready.</p>
  <p><a href="https://news.demo.example/engine">See it run</a></p>
  <p style="color: #777">You get this since you asked for it. Demo Ltd., 1 Example Street, Exampletown</p>
</body></html>
"""
_TEXT: Final = """\
Hello {{ first_name }} {{ last_name }},

everybody at {{ company }} should know: the analytical engine is ready.
https://news.demo.example/engine

You get this since you asked for it. Demo Ltd., 1 Example Street, Exampletown
"""


_ENVIRONMENT: Final = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY")}
"""What the caller's environment says of another gateway does not concern this one."""


@dataclass(frozen=True)
class Wishes:
    """What the command line asked for."""

    messages: int
    domains: int
    workers: int
    hide: bool


def tell(wishes: Wishes, folder: Path, screen: Screen) -> bool:
    """Run the whole story in `folder`; whether everything balances."""
    ledger = folder / "ledger.tsv"
    sink_options = ("--world", "default", "--ledger", str(ledger), "--parent-fd", "0", "--json")
    hide = ("--hide",) if wishes.hide else ()
    with Program("bench.load.sink", *sink_options, *hide, log_path=folder / "sink.log") as sink:
        screen.step(
            f"a receiving world listens on port {sink.said['port']}: most is taken, some refused, some lost"
        )
        config = write_settings(folder, sink_port=sink.said["port"], workers=wishes.workers)
        options = ("run", "--config", str(config), "--json")
        with Program("gateway.cli", *options, log_path=folder / "gateway.log", env=_ENVIRONMENT) as gateway:
            screen.step(
                f"the gateway is ready: {gateway.said['api']}, with its own Postgres and {wishes.workers} dispatcher(s)"
            )
            sent = _campaign(wishes, Stage(folder, config, sink, gateway, screen))
            verdict = judge(gateway.said["dsn"], ledger)
            books = _command("books", "--deep", "--json", config=config)
    _summary(sent, screen)
    return _conclude(verdict, books, screen)


def _campaign(wishes: Wishes, stage: Stage) -> Sent:
    """What an operator and an app do, by the API alone."""
    screen, url = stage.screen, stage.gateway.said["api"]
    created = _command("keys", "create", "--operator", "--name", "demo", "--json", config=stage.config)
    with Api(url, created["key"]) as operator:
        site = operator.post("/v1/sites", {"name": "Demo Ltd."})
        key = operator.post("/v1/keys", {"site": site["id"], "name": "app", "scopes": ["admin"]})
        with Api(url, key["key"]) as app:
            domain = app.post("/v1/domains", {"name": _SENDING_DOMAIN})
            operator.post(f"/v1/domains/{domain['id']}/actions/mark_verified")
            screen.step(
                f"site {site['name']} may send from {domain['name']} (the operator vouches for it; no DNS here)"
            )
            record = app.import_contacts("newsletter", make_csv(wishes.messages, wishes.domains))
            _tell_import(app, record, screen)
            template = app.post(
                "/v1/templates", {"name": "engine", "subject": _SUBJECT, "html": _HTML, "text": _TEXT}
            )
            broadcast = app.post(
                "/v1/broadcasts",
                {
                    "name": "The engine is ready",
                    "list": record["list"],
                    "template": template["id"],
                    "from": f"Demo Ltd. <hello@{_SENDING_DOMAIN}>",
                },
            )
            app.post(f"/v1/broadcasts/{broadcast['id']}/actions/send")
            screen.step(f"broadcast {broadcast['id']} is on its way")
            return watch(app, broadcast["id"], wishes.messages, stage)


def _tell_import(app: Api, record: Mapping[str, Any], screen: Screen) -> None:
    screen.step(f"{record['created']:,} contacts imported, {record['refused']} rows refused:")
    if record["refused"] != len(BAD_ROWS):
        raise RuntimeError(f"{len(BAD_ROWS)} rows of the file are bad, {record['refused']} were refused")
    for error in app.get(f"/v1/imports/{record['id']}/errors")["data"]:
        screen.step(f"  line {error['line']:,}, {error['column'] or 'row'}: {error['reason']}")


def _command(*arguments: str, config: Path) -> dict[str, Any]:
    """Run a command of the gateway; its JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", *arguments, "--config", str(config)],
        cwd=ROOT, env=_ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    if not done.stdout:
        raise ProgramError(f"gateway {' '.join(arguments)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def _summary(sent: Sent, screen: Screen) -> None:
    counts, delivered = sent.counts, max(sent.counts.get("delivered", 0), 1)
    rows = [("accepted", f"{counts.get('accepted', 0):,}")]
    rows += [(state.replace("_", " "), f"{counts.get(state, 0):,}") for state in _SHOWN]
    rows.append(("messages per second, retries included", f"{delivered / max(sent.seconds, 0.001):,.0f}"))
    rows += [
        (
            f"{name}, CPU per message",
            f"{cpu_s * 1000 / delivered:.3f} ms" if cpu_s > 0 else "unknown: a process ended on the way",
        )
        for name, cpu_s in sent.cpu_s.items()
    ]
    screen.table(rows)


def _conclude(verdict: Verdict, books: Mapping[str, Any], screen: Screen) -> bool:
    screen.verdict(verdict.balanced, ["against the receiver's own ledger: ", *verdict.lines()])
    good: bool = books["balanced"]
    said = f"id by id: {books['overall']['accepted']:,} accepted, each in exactly one state"
    screen.verdict(good, [said] if good else ["gateway books --deep:", *books["faults"]])
    return verdict.balanced and good
