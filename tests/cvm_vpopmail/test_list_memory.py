"""A list of a large domain takes no more memory than one of a small domain."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hosts import temporary_directory
from serving import environment
from vdomains import VpopmailHost, vpopmail_host

pytestmark = pytest.mark.root

MANY = 8_000
"""Accounts; each would take some 700 bytes in memory."""

MOST = 3 << 10
"""KiB by which the peak may differ: vpasswd.cdb and what is cached count too."""

PROGRAM = """
import os, sys, tempfile
from cvm_qmail.cvmctl.listing.formats import FORMATS
from cvm_qmail.cvmctl.listing.store import Store
from cvm_qmail.cvmctl.listing.survey import survey
from cvm_qmail.settings import Settings

with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryFile() as out:
    store = Store(survey(Settings.from_environment(os.environ), directory, b"example.com").path)
    store.settle(include_unknown=False)
    FORMATS["cdb"].write(store.entries(), out)
    print(sum(1 for _ in store.entries()))
with open("/proc/self/status") as status:
    print(*(line.split()[1] for line in status if line.startswith("VmHWM:")))
"""


def listed(host: VpopmailHost, count: int) -> tuple[int, int]:
    """How many addresses are listed, and the peak of memory in KiB."""
    home = host.at("example.com/bob")
    host.accounts("example.com", *(f"user{number}:0::{home}" for number in range(count)))
    output = subprocess.check_output([sys.executable, "-c", PROGRAM], env=environment(None, {}) | host.environment)
    entries, peak = map(int, output.split())
    return entries, peak


def test_the_memory_does_not_grow_with_the_list() -> None:
    with temporary_directory() as root:
        host = vpopmail_host(root)
        few, least = listed(host, 100)
        many, most = listed(host, MANY)
    assert (few, many) == (100, MANY)
    assert most - least < MOST
