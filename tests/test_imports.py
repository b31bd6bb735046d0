"""The direction in which modules import: design.md, Layout."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import cvm_qmail

PACKAGE = Path(cvm_qmail.__file__).parent
SYSTEM = r"os|socket|time|logging|select|subprocess|mmap|ctypes|pathlib|asyncio|io|sys"

RULES = {  # path of a module: what it may import of ours, and whether it may touch the system
    r"wire|answer": ("", False),
    r"dissect": ("wire", False),
    r"rules/.*": (r"answer|rules.*", False),
    r"responder": ("answer|wire", False),
    r"transports/.*": (r"transports.*", True),
    r"tables/.*": (r"(?!lookups|serve|transports|responder|cli|client|log|tool).*", True),
    r"settings": ("", True),
    r"slots": ("answer", True),
    r"recent": (r"answer|responder|tables.*", False),
    r"entry_points": ("", True),
    r"lookups": (r"answer|entry_points|rules.*|settings|tables.*|wire", True),
    r"log": ("responder", True),
    r"dry_run": (r"answer|lookups|responder|settings|tables.*", False),
    r"shadow": (r"answer|client|log|responder|settings|transports.*|wire", True),
    r"client": (r"wire|transports.*", True),
}


def imported(path: Path) -> list[str]:
    """All that a module imports, wherever it does."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: say which package"
            found += (
                [f"cvm_qmail.{alias.name}" for alias in node.names]
                if node.module == "cvm_qmail"
                else [str(node.module)]
            )
    return found


@pytest.mark.parametrize("rule", RULES)
def test_imports_run_one_way(rule: str) -> None:
    ours, system = RULES[rule]
    paths = [path for path in PACKAGE.rglob("*.py") if re.fullmatch(rule, str(path.relative_to(PACKAGE))[:-3])]
    assert paths
    for path in paths:
        names = imported(path)
        of_ours = [name.removeprefix("cvm_qmail.") for name in names if name.startswith("cvm_qmail")]
        assert [name for name in of_ours if not re.fullmatch(ours, name)] == [], path
        assert system or [name for name in names if re.match(rf"({SYSTEM})(\.|$)", name)] == [], path


def test_nothing_imports_the_package_that_builds_on_this_one() -> None:
    assert [path for path in PACKAGE.rglob("*.py") if any(n.startswith("cvm_vpopmail") for n in imported(path))] == []
