"""The files that put the gateway to work say what the gateway does: its exit codes, its ports, its user."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.app.brief import Role
from gateway.app.exits import Exit
from gateway.config import Config

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def settings(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


def test_there_is_a_unit_for_a_node_and_one_for_a_role() -> None:
    assert [unit.name for unit in UNITS] == ["gateway.service", "gateway@.service"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_again_whatever_may_be_mended_by_it(unit: Path) -> None:
    said = settings(unit)
    never = {int(code) for code in said["RestartPreventExitStatus"][0].split()}
    assert said["Restart"] == ["on-failure"]
    assert never == {Exit.USAGE, Exit.CONFIG}
    # The gateway's own grace, the margin after which it kills, and its Postgres's end.
    assert int(said["TimeoutStopSec"][0]) >= Config().dispatch.grace_s + 5 + 10
    assert said["User"] == ["gateway"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_understands_a_unit(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text().replace("/opt/gateway/bin/gateway", "/bin/true")
    copy = tmp_path / unit.name.replace("@.", f"@{Role.DISPATCH}.")
    copy.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if copy.name in line]
    assert (done.returncode, said) == (0, [])


def test_the_image_runs_as_nobody_and_watches_the_nodes_page() -> None:
    lines = [line.strip() for line in (DEPLOY / "Containerfile").read_text().splitlines()]
    last_stage = lines[max(i for i, line in enumerate(lines) if line.startswith("FROM ")) :]
    assert [line for line in last_stage if line.startswith("USER ")] == ["USER 10001"]
    assert not [line for line in lines if line.startswith(("ADD ", "FROM ")) and line.endswith("latest")]
    port = re.search(r"GATEWAY__METRICS__PORT=(\d+)", "\n".join(last_stage))
    assert port is not None
    assert f"http://127.0.0.1:{port[1]}/readyz" in "\n".join(last_stage)
    exposed = next(line for line in last_stage if line.startswith("EXPOSE ")).split()[1:]
    assert exposed == [str(Config().api.port), str(Config().listen.port), port[1]]
