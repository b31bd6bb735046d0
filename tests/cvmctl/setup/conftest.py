"""Hosts for the tests of cvmctl setup."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hosts import temporary_directory
from trees import ELF, PASSWD, System


@pytest.fixture
def system() -> Iterator[System]:
    """A host with qmail, and no supervisor."""
    with temporary_directory() as directory:
        made = System(directory)
        made.put("/etc/passwd", PASSWD)
        made.put("/var/qmail/control/me", "mx.example.org\n")
        made.put("/var/qmail/control/locals", "example.org\n")
        made.put("/var/qmail/bin/qmail-smtpd", ELF + b"\0RCPTHOSTS\0")
        yield made


@pytest.fixture
def runit(system: System) -> System:
    """With runit."""
    system.put("/usr/bin/runsvdir", ELF)
    (system.root / "etc/service").mkdir()
    return system


@pytest.fixture
def systemd(system: System) -> System:
    """With systemd."""
    (system.root / "run/systemd/system").mkdir(parents=True)
    return system
