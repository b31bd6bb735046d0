"""What a qmail host has.  Only files are read; no program that is found is run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from cvm_qmail.cvmctl.setup.services import Service, services
from cvm_qmail.cvmctl.setup.smtpd import Patch, patches
from cvm_qmail.cvmctl.setup.tree import Tree

QMAIL_HOMES = ("/var/qmail", "/var/lib/qmail", "/usr/local/qmail", "/opt/qmail")
"""Directories in which qmail is searched if neither QMAIL_ROOT nor the home directory of `alias` names it."""

SUPERVISORS = ("runit", "s6", "systemd")

_PROGRAM = {"runit": "runsvdir", "s6": "s6-svscan"}
"""The supervisors."""

DATABASES = {"/etc/vpopmail.mysql": "mysql", "/etc/vpopmail.pgsql": "pgsql"}
"""Files of vpopmail's home, and the extra that reads what they name."""


class Vpopmail(NamedTuple):
    """A vpopmail."""

    home: str
    domains: int
    database: str
    """The extra that is needed for it; empty: accounts are in files."""


class Survey(NamedTuple):
    """What was found."""

    qmail: str | None
    domain: str
    """One of its domains, for an example; empty: none."""
    vpopmail: Vpopmail | None
    supervisors: list[str]
    mailfront: str | None
    smtpd: list[Patch] | None
    services: list[Service]
    accounts: frozenset[str]
    packaged: bool
    """Whether the units of Debian's package are installed."""

    @property
    def checks(self) -> list[Service]:
        """The existing recipient checks."""
        return [service for service in self.services if service.checks]


def survey(tree: Tree, environment: Mapping[str, str]) -> Survey:
    """Reads the host."""
    accounts = tree.accounts()
    qmail = _qmail(tree, environment, accounts)
    return Survey(
        qmail,
        (tree.first_line(f"{qmail}/control/locals") or tree.first_line(f"{qmail}/control/me")) if qmail else "",
        _vpopmail(tree, accounts),
        _supervisors(tree),
        tree.program("mailfront"),
        patches(tree, qmail) if qmail else None,
        services(tree),
        frozenset(accounts),
        any(
            tree.exists(f"{directory}/cvm-rcptto.service")
            for directory in ("/lib/systemd/system", "/usr/lib/systemd/system")
        ),
    )


def _qmail(tree: Tree, environment: Mapping[str, str], accounts: Mapping[str, str]) -> str | None:
    homes = [environment.get("QMAIL_ROOT", ""), os.path.dirname(accounts.get("alias", "").rstrip("/")), *QMAIL_HOMES]
    return next((home for home in homes if home.startswith("/") and tree.is_directory(f"{home}/control")), None)


def _vpopmail(tree: Tree, accounts: Mapping[str, str]) -> Vpopmail | None:
    for home in (accounts.get("vpopmail", ""), "/home/vpopmail", "/var/vpopmail"):
        if home.startswith("/") and tree.is_directory(f"{home}/domains"):
            domains = [name for name in tree.names(f"{home}/domains") if tree.is_directory(f"{home}/domains/{name}")]
            found = (extra for file, extra in DATABASES.items() if tree.first_line(home + file))
            return Vpopmail(home, len(domains), next(found, ""))
    return None


def _supervisors(tree: Tree) -> list[str]:
    """The supervisors, in the order of preference: one that is running, systemd, one that is only installed."""
    there = [name for name, program in _PROGRAM.items() if tree.program(program)]
    running = {tree.first_line(f"/proc/{process}/comm") for process in tree.names("/proc") if process.isdigit()}
    used = [name for name in there if _PROGRAM[name] in running]
    systemd = ["systemd"] if tree.is_directory("/run/systemd/system") else []
    return [*used, *systemd, *(name for name in there if name not in used)]
