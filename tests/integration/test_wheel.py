"""The wheel: built from this tree, installed into a fresh environment, it runs with nothing of the tree in sight."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from gateway.store.migrate import read_migrations

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "GATEWAY", "VIRTUAL_ENV"))
    }
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    build = f"from hatchling.build import build_wheel; print(build_wheel({str(out)!r}))"
    return out / run(sys.executable, "-c", build, cwd=ROOT).split()[-1]


def test_everything_that_the_gateway_reads_is_inside_and_nothing_of_its_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tree = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "gateway").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert tree <= set(names)
    shared = {
        name.partition("/share/delivery-gateway/")[2] for name in names if "/share/delivery-gateway/" in name
    }
    assert shared >= {
        "config/gateway.toml", "config/throttles.toml", "config/bounces.toml",
        "systemd/gateway.service", "systemd/gateway@.service", "docs/operations.md",
    }  # fmt: skip
    assert not [name for name in names if name.startswith(("tests/", "bench/", "demo/"))]


def test_it_runs_in_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=tmp_path)
    python = environment / "bin" / "python"
    site = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    )
    run(
        Path(sys.executable).with_name("uv"), "pip", "install", "--offline", "--no-deps", "--no-cache", "--python", python, wheel,
        cwd=tmp_path,
    )  # fmt: skip
    # What it needs is what is installed here; the tree itself is not: a path that a .pth names has its own .pth files ignored.
    (site / "installed_here.pth").write_text(sysconfig.get_path("purelib") + "\n")
    home = run(python, "-c", "import gateway; print(gateway.__file__)", cwd=tmp_path)
    assert home.startswith(str(environment))
    command = environment / "bin" / "gateway"
    assert "Run the gateway until SIGTERM" in run(command, "run", "--help", cwd=tmp_path)
    assert "migrate" in run(command, "--help", cwd=tmp_path)
    count = run(
        python, "-c", "from gateway.store.migrate import read_migrations as r; print(len(r()))", cwd=tmp_path
    )
    assert int(count) == len(read_migrations())
    shipped = environment / "share" / "delivery-gateway" / "config" / "gateway.toml"
    run(command, "check-config", "--config", shipped, cwd=tmp_path)
