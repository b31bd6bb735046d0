"""What a module imports when it runs.

What types alone need (below ``if TYPE_CHECKING:``) does not count.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import cvm_qmail

TOP = Path(cvm_qmail.__file__).parent.parent

SYSTEM = r"os|socket|time|logging|select|subprocess|mmap|ctypes|pathlib|asyncio|io|sys"
"""Modules of Python that touch the system."""


def running(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that are there when the module runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from running(child)


def imported(path: Path) -> list[str]:
    """Every module that a module imports, wherever it does."""
    found: list[str] = []
    for node in running(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: say which package"
            found += [module_of(str(node.module), alias.name) for alias in node.names]
    return found


def module_of(package: str, name: str) -> str:
    """What ``from package import name`` imports: a module of the package, or the package for a name in it."""
    if not package.startswith("cvm_"):
        return package
    place = TOP / package.replace(".", "/")
    return f"{package}.{name}" if (place / f"{name}.py").exists() or (place / name).is_dir() else package
