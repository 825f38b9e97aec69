"""Pure modules: state and bytes in, data out. No await, no clock, no socket, no logging.

Pure is what is in `PURE` (the modules marked (P) in docs/architecture.md), and every module whose docstring says "Pure." or
"(P)". A pure module may import pure ones only.
"""

from __future__ import annotations

import ast
import re

from tests.arch.sources import Module, imports, modules

PURE = {
    "gateway.errors",
    "gateway.config.strict_toml",
    *(f"gateway.throttle.{name}" for name in ("bucket", "shaping", "adapt", "rules", "quota")),
    *(f"gateway.mta.{name}" for name in ("site", "mime", "verp", "reply", "reply_rules", "bounce_rules")),
    *(f"gateway.sms.{name}" for name in ("segments", "receipts", "keywords")),
    *(f"gateway.campaigns.{name}" for name in ("sequence", "windows", "experiment", "segments")),
    *(f"gateway.feedback.{name}" for name in ("dsn", "arf", "classify", "policy")),
}
_MARK = re.compile(r"\bPure[.:]|\(P\)")

# Each would bring the world in: time, randomness, files, the network, other threads.
_FORBIDDEN = {
    "aiodns", "aiosmtpd", "aiosmtplib", "asyncio", "asyncpg", "fcntl", "httpx", "io", "litestar", "logging", "os", "prometheus_client",
    "pycares", "secrets", "select", "shutil", "signal", "socket", "ssl", "structlog", "subprocess", "tempfile", "threading", "time",
    "uvicorn", "uvloop",
}  # fmt: skip
_FORBIDDEN_CALLS = {"open", "input", "print"}
_CLOCK_METHODS = {"now", "utcnow", "today"}


def _is_pure(module: Module) -> bool:
    inside_model = module.name == "gateway.model" or module.name.startswith("gateway.model.")
    return inside_model or module.name in PURE or bool(_MARK.search(ast.get_docstring(module.tree) or ""))


def _impurities(module: Module, pure: set[str], known: set[str]) -> list[str]:
    found: list[str] = []
    for node, name in imports(module):
        if name.split(".")[0] in _FORBIDDEN:
            found.append(f"{module.at(node)}: a pure module imports {name}")
        elif name in known and name not in pure and name.count(".") > 1:
            found.append(f"{module.at(node)}: a pure module imports {name}, which is not pure")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            found.append(f"{module.at(node)}: a pure module awaits")
        if isinstance(node, ast.Call):
            match node.func:
                case ast.Name(id=called) if called in _FORBIDDEN_CALLS:
                    found.append(f"{module.at(node)}: a pure module calls {called}()")
                case ast.Attribute(value=ast.Name(id="datetime" | "date"), attr=called) if (
                    called in _CLOCK_METHODS
                ):
                    found.append(f"{module.at(node)}: a pure module reads the clock: take a `now` parameter")
                case ast.Attribute(value=ast.Name(id="random"), attr=called) if called != "Random":
                    found.append(
                        f"{module.at(node)}: a pure module throws dice: take a random.Random parameter"
                    )
                case _:
                    pass
    return found


def test_pure_modules_are_pure() -> None:
    everything = modules()
    known = {module.name for module in everything}
    pure = {module.name for module in everything if _is_pure(module)}
    assert "gateway.errors" in pure
    wrong = [
        line for module in everything if module.name in pure for line in _impurities(module, pure, known)
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_the_test_sees_what_it_forbids() -> None:
    bad = 'import time\nfrom datetime import datetime\nasync def f():\n    await g()\n    open("x")\n    datetime.now()\n'
    module = Module(name="gateway.model.bad", path=modules()[0].path, tree=ast.parse(bad))
    assert len(_impurities(module, set(), set())) == 5
