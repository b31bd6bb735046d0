"""The service that fits a host: its files, and the commands that come next.

Invariants: it starts in dry-run mode, so that no mail is rejected before an administrator has read the log; its name
and its socket are its own; the secret is in one file of mode 0600 and is never shown.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from shlex import quote
from typing import NamedTuple

from cvm_qmail.cvmctl.setup.services import DIRECTORIES, Service
from cvm_qmail.cvmctl.setup.survey import Survey
from cvm_qmail.cvmctl.setup.templates import template, templates
from cvm_qmail.cvmctl.setup.tree import Tree

NAME = "cvm-rcptto"
ACCOUNT = "cvm"
PROGRAM = "/usr/local/bin/cvm-qmail"
"""The program that the units of contrib/ name."""

UNITS = "/etc/systemd/system"
PACKAGED = "/etc/cvm-qmail/env"
"""The settings of the package's units, a file each; the secret is there already."""

_KEY = "CVM_LOOKUP_SECRET"
_MAKE_ACCOUNT = f"useradd --system --no-create-home --shell /usr/sbin/nologin {ACCOUNT}"


class File(NamedTuple):
    """A file to write."""

    path: str
    mode: int
    text: str
    secret: bool = False
    """Whether its text holds a secret."""


class Plan(NamedTuple):
    """What `cvmctl setup --apply` writes, and what it prints then."""

    supervisor: str
    name: str
    module: str
    files: list[File]
    commands: list[str]
    in_use: list[str]
    """Links that show that the service has been put into use."""


class Parts(NamedTuple):
    """What the plan of each supervisor needs."""

    tree: Tree
    found: Survey
    program: str
    name: str
    settings: dict[str, str]
    """By variable, the secret not among them."""
    secret: str

    @property
    def module(self) -> str:
        """What clients call."""
        return f"cvm-local:/run/{self.name}/socket"

    @property
    def example(self) -> str:
        """A question to put to it."""
        return f"cvmctl ask {self.module} {quote('postmaster@' + (self.found.domain or 'example.org'))}"

    def account_first(self, command: str) -> str:
        """The command, after one that makes the account where it is missing."""
        return command if ACCOUNT in self.found.accounts else f"{_MAKE_ACCOUNT} && {command}"


def plan(tree: Tree, found: Survey, supervisor: str, program: str) -> Plan:
    """The service for this supervisor, in addition to existing ones."""
    old = next((service for service in found.checks if service.module), None)
    settings = {"QMAIL_ROOT": found.qmail or "/var/qmail", "CVM_DRY_RUN": "1"}
    if old is not None:
        settings["CVM_SHADOW"] = old.module
    parts = Parts(tree, found, program, _free_name(tree), settings, _secret(tree, old))
    return _PLANS[supervisor](parts)


def _free_name(tree: Tree) -> str:
    """The first name that no service of the administrator has."""
    number = 1
    while True:
        name = NAME if number == 1 else f"{NAME}-{number}"
        directories = [directory for known in DIRECTORIES.values() for directory in known]
        taken = [*(f"{directory}/{name}" for directory in directories), f"{UNITS}/{name}.service", f"/etc/{name}.conf"]
        if not any(map(tree.exists, taken)):
            return name
        number += 1


def _secret(tree: Tree, old: Service | None) -> str:
    """The secret of the existing check, so that its clients need no change; else a new one."""
    kept = tree.first_line(f"{old.environment}/CVM_LOOKUP_SECRET") if old else ""
    return kept or secrets.token_hex(16)


# -- runit and s6 -------------------------------------------------------------------------------------


def _runit(parts: Parts) -> Plan:
    scanned = next(filter(parts.tree.is_directory, ("/etc/service", "/service", "/var/service")), "/etc/service")
    return _directory(parts, "runit", scanned, "ln -s {directory} {scanned}/", "chpst -e")


def _s6(parts: Parts) -> Plan:
    scanned = next(filter(parts.tree.is_directory, ("/run/service", "/service")), "/run/service")
    return _directory(parts, "s6", scanned, "ln -s {directory} {scanned}/ && s6-svscanctl -a {scanned}", "s6-envdir")


def _directory(parts: Parts, supervisor: str, scanned: str, start: str, envdir: str) -> Plan:
    directory = f"{DIRECTORIES[supervisor][0]}/{parts.name}"
    texts = templates(f"{supervisor}/{NAME}")
    texts["run"] = texts["run"].replace(" cvm-qmail ", f" {quote(parts.program)} ")
    settings = {**parts.settings, "CVM_LOOKUP": parts.module, _KEY: parts.secret}
    texts |= {f"env/{name}": value + "\n" for name, value in settings.items()}
    files = [
        File(f"{directory}/{path}", _mode(path), text, secret=path == f"env/{_KEY}")
        for path, text in sorted(texts.items())
    ]
    commands = [
        parts.account_first(start.format(directory=directory, scanned=scanned)),
        f"{envdir} {directory}/env {parts.example}",
        f"grep -F 'dry run: this would be rejected' {directory}/log/main/current",
    ]
    return Plan(supervisor, parts.name, parts.module, files, commands, [f"{scanned}/{parts.name}"])


def _mode(path: str) -> int:
    if path == f"env/{_KEY}":
        return 0o600
    return 0o755 if path.endswith("run") else 0o644


# -- systemd ------------------------------------------------------------------------------------------


def _systemd(parts: Parts) -> Plan:
    if parts.found.packaged:
        return _of_package(parts._replace(name=NAME))
    name, conf = parts.name, f"/etc/{parts.name}.conf"
    settings = {**parts.settings, _KEY: parts.secret}
    service = template(f"systemd/{NAME}.service").replace(PROGRAM, parts.program).replace(NAME, name)
    files = [
        File(conf, 0o600, "".join(f"{key}={_quoted(value)}\n" for key, value in settings.items()), secret=True),
        File(f"{UNITS}/{name}.service", 0o644, _reaches(parts.found, service)),
        File(f"{UNITS}/{name}.socket", 0o644, template(f"systemd/{NAME}.socket").replace(NAME, name)),
    ]
    return _units(parts, files, f"( set -a; . {conf}; {parts.example} )")


def _of_package(parts: Parts) -> Plan:
    """The package has units and a secret: only settings are written, except those that exist already."""
    settings = {f"{PACKAGED}/{name}": value for name, value in parts.settings.items()}
    files = [File(path, 0o644, f"{value}\n") for path, value in settings.items() if not parts.tree.exists(path)]
    return _units(parts, files, f'{_KEY}="$(cat {PACKAGED}/{_KEY})" {parts.example}')


def _units(parts: Parts, files: list[File], question: str) -> Plan:
    start = f"systemctl daemon-reload && systemctl enable --now {parts.name}.socket"
    log = f"journalctl -u {parts.name} | grep -F 'dry run: this would be rejected'"
    in_use = [f"{UNITS}/{wants}/{parts.name}.{kind}" for wants, kind in _WANTED]
    return Plan("systemd", parts.name, parts.module, files, [parts.account_first(start), question, log], in_use)


_WANTED = (("sockets.target.wants", "socket"), ("multi-user.target.wants", "service"))


def _quoted(value: str) -> str:
    """As a value in an EnvironmentFile and in a shell script."""
    return value if value.replace("/", "").replace("-", "").isalnum() else '"' + _escaped(value) + '"'


def _escaped(value: str) -> str:
    return "".join(f"\\{char}" if char in '"\\$`' else char for char in value)


def _reaches(found: Survey, unit: str) -> str:
    """The unit, with access to the network if the accounts are in a database, which may be on another host."""
    if found.vpopmail is None or not found.vpopmail.database:
        return unit
    unit = unit.replace("\nPrivateNetwork=yes\n", "\nPrivateNetwork=no\n")
    return unit.replace("\nRestrictAddressFamilies=AF_UNIX\n", "\nRestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n")


_PLANS: dict[str, Callable[[Parts], Plan]] = {"runit": _runit, "s6": _s6, "systemd": _systemd}
