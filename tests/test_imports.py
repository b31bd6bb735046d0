"""The direction in which modules import: docs/architecture.md, Layers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest
from imports import SYSTEM, TOP, imported

import cvm_directory
import cvm_qmail
import cvm_vmailmgr
import cvm_vpopmail


def _modules(package: ModuleType) -> Iterator[Path]:
    return Path(str(package.__file__)).parent.rglob("*.py")


PACKAGE = Path(cvm_qmail.__file__).parent
PATHS = sorted(path for package in (cvm_directory, cvm_qmail, cvm_vmailmgr, cvm_vpopmail) for path in _modules(package))

LAYERS = (
    "cli",
    "cvmctl",
    "gateway",
    "server",
    "pipeline",
    "observe",
    "protocols",
    "transports",
    "service",
    "qmail",
    "programs",
    "entry_points",
    "passwords",
    "plugin",
    "tables",
    "rules",
    "process",
    "settings",
    "reasons",
    "answer",
    "escape",
    "exits",
)
"""Modules and packages of cvm_qmail from the top down: none imports what is above it."""

KNOWS_NOTHING_OF = {
    "transports": "(?!transports|exits|process)",  # bytes come and go, whatever they mean
    "service": "protocols|transports|observe",
    "protocols": "observe|server|pipeline",
    "rules": "(?!rules|answer)",
    "answer": "",
    "escape": "",
    "exits": "",
    r"protocols/cvm/packets": "",
}
"""What a part does not import, beside what is above it; a pattern for the start of the name in cvm_qmail."""

PURE = (
    r"cvm_directory/notation.py",
    r"cvm_directory/rules.py",
    r"answer.py",
    r"escape.py",
    r"plugin.py",
    r"qmail.py",
    r"reasons.py",
    r"rules/.*",
    r"service/.*",
    r"protocols/(?!cvm/client|routes).*",  # routes: os.fsdecode of what a file names
)
"""Modules that touch no system."""


def name_of(path: Path) -> str:
    """``cvm_qmail.tables.cdb``; for a package, its own name."""
    return ".".join(path.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__")


@cache
def graph() -> dict[str, set[str]]:
    """What of ours each module imports."""
    return {name_of(path): {name for name in imported(path) if name.startswith("cvm_")} for path in PATHS}


def test_no_imports_go_in_a_circle() -> None:
    order = list(TopologicalSorter({module: names - {module} for module, names in graph().items()}).static_order())
    assert set(graph()) <= set(order)


def part_of(module: str) -> str:
    """The module or package of cvm_qmail that has a layer."""
    return [*module.split("."), ""][1]


def test_every_part_has_a_layer() -> None:
    parts = {part_of(module) for module in graph() if module.startswith("cvm_qmail.")}
    assert parts - set(LAYERS) == set()


@pytest.mark.parametrize("layer", LAYERS)
def test_no_import_goes_up(layer: str) -> None:
    above = set(LAYERS[: LAYERS.index(layer)])
    upward = [
        (module, name)
        for module, names in graph().items()
        if module.startswith("cvm_qmail.") and part_of(module) == layer
        for name in names
        if part_of(name) in above
    ]
    assert upward == []


@pytest.mark.parametrize("part", KNOWS_NOTHING_OF)
def test_parts_do_not_know_each_other(part: str) -> None:
    pattern = KNOWS_NOTHING_OF[part] or "."
    place = f"cvm_qmail.{part.replace('/', '.')}"
    modules = [module for module in graph() if module == place or module.startswith(place + ".")]
    assert modules
    known = [
        (module, name)
        for module in modules
        for name in graph()[module]
        if re.match(pattern, name.removeprefix("cvm_qmail."))
    ]
    assert known == []


@pytest.mark.parametrize("pattern", PURE)
def test_what_decides_touches_no_system(pattern: str) -> None:
    paths = [path for path in PATHS if re.fullmatch(pattern, str(path.relative_to(TOP)).removeprefix("cvm_qmail/"))]
    assert paths
    assert [(path, name) for path in paths for name in imported(path) if re.match(rf"({SYSTEM})(\.|$)", name)] == []


def test_nothing_imports_the_package_that_builds_on_this_one() -> None:
    assert [
        m for m, names in graph().items() if m.startswith("cvm_qmail") and any("vpopmail" in n for n in names)
    ] == []


def test_nothing_imports_the_directory_and_it_knows_of_vpopmail_the_databases_only() -> None:
    users = {module for module, names in graph().items() if any(name.startswith("cvm_directory") for name in names)}
    assert {module.partition(".")[0] for module in users} <= {"cvm_directory"}
    used = {name for module, names in graph().items() if module.startswith("cvm_directory") for name in names}
    databases = r"cvm_vpopmail\.(credentials|dialects|notices|sqlconfig|tables\.\w+)"
    assert [name for name in used if name.startswith("cvm_vpopmail") and not re.fullmatch(databases, name)] == []


def test_the_directory_is_read_without_what_publishes_it() -> None:
    reading = {module for module in graph() if re.match(r"cvm_directory\.(?!publishing|commands)", module)}
    assert reading
    assert [
        m for m in reading for name in graph()[m] if re.match(r"cvm_(directory\.publishing|qmail\.cvmctl)", name)
    ] == []


def test_codes_of_cvm_are_known_to_its_protocol_only() -> None:
    """And to commands that show packets, and to who puts a way together."""
    known = {module for module, names in graph().items() if "cvm_qmail.protocols.cvm.packets" in names}
    parts = {part_of(module) for module in known if module.startswith("cvm_qmail.")}
    assert parts <= {"protocols", "cvmctl", "gateway", "observe"}
    assert {module for module in known if module.startswith("cvm_vpopmail.")} == set()
