"""What has one home only: SQL in gateway/store, the environment in gateway/config, a docstring in every module."""

from __future__ import annotations

import ast
import re

import pytest

from tests.arch.sources import Module, docstrings, imports, modules

_SQL = re.compile(
    r"\bselect\s[^;]*\sfrom\s|\binsert\s+into\s|\bupdate\s+\w+\s+set\s|\bdelete\s+from\s|\bcreate\s+(temp\w*\s+)?table\s|"
    r"\bcopy\s+\w+\s+(from|to)\s|^\s*(listen|notify)\s+\w+",
    re.IGNORECASE,
)


def _sql_strings(module: Module) -> list[str]:
    prose = docstrings(module.tree)
    return [
        f"{module.at(node)}: {node.value.strip()[:60]!r}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose and _SQL.search(node.value)
    ]  # fmt: skip


def test_sql_is_written_in_the_store_alone() -> None:
    wrong = [
        line
        for module in modules()
        if not module.name.startswith("gateway.store")
        for line in _sql_strings(module)
    ]
    assert not wrong, "SQL outside gateway/store; make it a named query of gateway/store/sql:\n" + "\n".join(
        wrong
    )


def test_only_the_config_reads_the_environment() -> None:
    wrong: list[str] = []
    for module in modules():
        if module.name.startswith("gateway.config"):
            continue
        wrong += [module.at(node) for node, name in imports(module) if name in {"os.environ", "os.getenv"}]
        wrong += [
            module.at(node)
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Attribute)
            and node.attr in {"environ", "environb", "getenv", "getenvb"}
            and isinstance(node.value, ast.Name)
            and node.value.id == "os"
        ]
    assert not wrong, "only gateway/config reads the environment:\n" + "\n".join(wrong)


def test_every_module_says_what_it_owns() -> None:
    wrong = [str(module.path) for module in modules() if not ast.get_docstring(module.tree)]
    assert not wrong, "no module docstring:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "is_sql"),
    [
        ("SELECT id FROM queue", True),
        ("select\n id\n from queue", True),
        ("insert into queue values (1)", True),
        ("UPDATE lane SET tat = 1", True),
        ("delete from queue", True),
        ("Select a list, then confirm", False),
        ("update the suppression set", False),
        ("cannot insert the contact into the list", False),
    ],
)
def test_the_test_tells_sql_from_prose(text: str, is_sql: bool) -> None:
    tree = ast.parse(f"x = {text!r}")
    assert bool(_sql_strings(Module(name="gateway.x", path=modules()[0].path, tree=tree))) == is_sql
