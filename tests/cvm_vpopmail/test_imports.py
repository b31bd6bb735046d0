"""The direction in which vpopmail's modules import, as they run: rules are pure, and nothing imports upwards.

That cvm_qmail never imports cvm_vpopmail is checked beside cvm_qmail's own rules.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from imports import SYSTEM, imported

import cvm_vpopmail

PACKAGE = Path(cvm_vpopmail.__file__).parent

RULES = {  # path of a module: what it may import of ours, and whether it may touch the system
    r"accounts": ("", False),
    r"rules/.*": (r"cvm_qmail\.(answer|rules.*)|cvm_vpopmail\.(accounts|rules.*)", False),
    r"vpasswd": (r"cvm_vpopmail\.(accounts|rules.*)|cvm_qmail\.passwords", False),
    r"credentials": (r"cvm_vpopmail\.rules.*", False),
    r"dialects": (r"cvm_vpopmail\.(credentials|rules.*|tables\.(mysql|pgsql))", False),
    r"settings": (r"cvm_qmail\.settings|cvm_vpopmail\.dialects", True),
    r"tables/(connection|mysql|pgsql)": (r"cvm_vpopmail\.(credentials|tables\.(connection|mysql_packets))", True),
    r"tables/mysql_packets": (r"cvm_vpopmail\.tables\.connection", False),
    r"tables/.*": (
        (
            r"cvm_qmail\.(answer|passwords|process\.\w+|settings|tables.*|protocols\.cvm\.packets)"
            r"|cvm_vpopmail\.(?!authentication|check|cli|cvmctl|host|lint|listing|module|program|remedies).*"
        ),
        True,
    ),
    r"host": (
        r"cvm_qmail\.(answer|plugin|settings|tables.*)|cvm_vpopmail\.(accounts|rules.*|settings|tables.*)",
        True,
    ),
    r"authentication": (
        r"cvm_qmail\.(answer|passwords|plugin|tables.*)|cvm_vpopmail\.(accounts|host|rules.*)",
        False,
    ),
    r"module": (
        r"cvm_qmail\.(answer|entry_points|plugin|qmail|settings|tables.*)|cvm_vpopmail\.(authentication|host|rules.*)",
        False,
    ),
}

PATHS = sorted(PACKAGE.rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))[:-3]


@pytest.mark.parametrize("rule", RULES)
def test_imports_run_one_way(rule: str) -> None:
    ours, system = RULES[rule]
    paths = [path for path in PATHS if re.fullmatch(rule, name(path))]
    assert paths
    for path in paths:
        names = imported(path)
        assert [n for n in names if n.startswith("cvm_") and not re.fullmatch(ours, n)] == [], path
        assert system or [n for n in names if re.match(rf"({SYSTEM})(\.|$)", n)] == [], path


def test_only_the_command_knows_servers_and_only_the_helper_knows_cvmctl() -> None:
    above = {"cli": "cli", **dict.fromkeys(("cvmctl", "lint", "listing", "remedies"), "cvmctl")}
    servers = (
        r"cvm_qmail\.(cli|observe\.shadow|process\.(?!network|sandbox)|protocols\.cvm\.(?!packets)"
        r"|server|service|transports|cvmctl)"
    )
    for path in PATHS:
        upwards = [n for n in imported(path) if re.match(servers, n)]
        assert [n for n in upwards if n.split(".")[1] != above.get(name(path))] == [], path


def test_a_driver_of_a_database_is_imported_by_its_own_module_only() -> None:
    """A host without the extra still runs the cdb back end."""
    users = {name(path) for path in PATHS if any(re.match(r"(pymysql|psycopg)", n) for n in imported(path))}
    assert users <= {"tables/mysql", "tables/pgsql"}
