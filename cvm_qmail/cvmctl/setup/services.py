"""Existing services: run scripts and units that name a recipient check or an SMTP server.

They are read, never run.  A name that a script computes is not found: a service may be overlooked, and only the
advice depends on finding one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from cvm_qmail.cvmctl.setup.tree import Tree

LIMIT = 1 << 16
"""Bytes of a script or unit that are read."""

DIRECTORIES = {
    "runit": ("/etc/sv", "/etc/service", "/var/service", "/service", "/etc/runit/runsvdir/default"),
    "s6": ("/etc/s6", "/run/service", "/etc/s6/service"),
}
"""The directories of services for each supervisor; a new one goes into the first."""

UNITS = ("/etc/systemd/system", "/usr/local/lib/systemd/system")
"""Where an administrator keeps units."""

_CHECK = re.compile(r"(?:^|[\s;|&=])((?:/[\w./+-]*)?(?:cvm-qmail|cvm-qmaild|cvm-vchkpw|cvm-vpopmail))(?=[\s;]|$)")
_SMTP = re.compile(r"(?:^|[\s;|&/])(qmail-smtpd|mailfront|smtpfront-qmail)(?=[\s;]|$)")
_MODULE = re.compile(r"\b(cvm-(?:local|udp|command):[^\s\"';]+)")


class Service(NamedTuple):
    """A service that checks recipients, or that an SMTP client talks to."""

    supervisor: str
    directory: str
    """The service's directory, or its unit."""
    program: str
    checks: bool
    """Whether it is a recipient check; else it is an SMTP server."""
    module: str
    """The name of its module for clients, as far as it can be read."""
    is_c: bool
    """Whether the program is the C program."""

    @property
    def environment(self) -> str:
        """The directory of its settings."""
        return f"{self.directory}/env"


def services(tree: Tree) -> list[Service]:
    """The services that can be found, each once."""
    found: dict[str, Service] = {}
    for supervisor, directory, text in _scripts(tree):
        service = _service(tree, supervisor, directory, text)
        if service is not None:
            found.setdefault(tree.resolved(directory), service)
    return list(found.values())


def _scripts(tree: Tree) -> Iterator[tuple[str, str, str]]:
    for supervisor, directories in DIRECTORIES.items():
        for directory in directories:
            for name in tree.names(directory):
                if (script := tree.read(f"{directory}/{name}/run", LIMIT)) is not None:
                    yield supervisor, f"{directory}/{name}", _code(script)
    for directory in UNITS:
        for name in tree.names(directory):
            if name.endswith(".service") and (unit := tree.read(f"{directory}/{name}", LIMIT)) is not None:
                yield "systemd", f"{directory}/{name}", _code(unit)


def _code(script: bytes) -> str:
    """Without lines that are comments."""
    text = script.decode("utf-8", "surrogateescape")
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def _service(tree: Tree, supervisor: str, directory: str, text: str) -> Service | None:
    check, smtp, module = _CHECK.search(text), _SMTP.search(text), _MODULE.search(text)
    found = check or smtp
    if found is None:
        return None
    program = found[1]
    named = module[1] if module else tree.first_line(f"{directory}/env/CVM_LOOKUP")
    return Service(supervisor, directory, program, check is not None, named, check is not None and _is_c(tree, program))


def _is_c(tree: Tree, program: str) -> bool:
    """Whether it is machine code, as the C program is; this software's programs begin with #!."""
    path = program if program.startswith("/") else tree.program(program)
    return path is not None and tree.read(path, 4) == b"\x7fELF"
