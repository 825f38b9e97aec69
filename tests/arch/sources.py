"""The gateway's source as syntax trees, for the tests of its architecture."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]


class Module(msgspec.Struct, frozen=True):
    """One file of the gateway: its dotted name, its path from the root of the repository, its tree."""

    name: str
    path: Path
    tree: ast.Module

    def at(self, node: ast.AST) -> str:
        """Where a node is, as an editor can open it."""
        return f"{self.path}:{getattr(node, 'lineno', 1)}"


def modules() -> list[Module]:
    """Every module under gateway/, in the order of their paths."""
    found: list[Module] = []
    for file in sorted((ROOT / "gateway").rglob("*.py")):
        path = file.relative_to(ROOT)
        name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        found.append(Module(name=name, path=path, tree=ast.parse(file.read_text(encoding="utf-8"))))
    return found


def imports(module: Module) -> Iterator[tuple[ast.AST, str]]:
    """What a module imports at run time, each with its node: dotted names, `from a import b` as both `a` and `a.b`."""
    skipped = {
        id(inner) for node in ast.walk(module.tree) if _is_typing_only(node) for inner in ast.walk(node)
    }
    for node in ast.walk(module.tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node, node.module
            for alias in node.names:
                yield node, f"{node.module}.{alias.name}"


def docstrings(tree: ast.Module) -> set[int]:
    """Ids of the constants that are docstrings, of modules, classes, functions and attributes."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def _is_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
