"""What the tests share: whether we are root, and hosts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from hosts import Host, a_folder, plain_host
from serving import Server, serving

PEERS = ("cvm-testclient", "mailfront", "runsvdir")


def pytest_report_header() -> list[str]:
    """Says loudly what cannot be tested here."""
    lines = []
    if os.geteuid() != 0:
        lines.append("NOT ROOT: nothing that needs other users' rights is tested")
    lines += [f"MISSING PEER: {name}: its tests are skipped" for name in PEERS if shutil.which(name) is None]
    return lines


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root: homes belong to several users"))
        for marker in item.iter_markers("peer"):
            missing = [name for name in marker.args if shutil.which(name) is None]
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"PEER MISSING: {', '.join(missing)}"))


@pytest.fixture
def host() -> Iterator[Host]:
    """A plain host, see `hosts.plain_host`."""
    with a_folder() as folder:
        yield plain_host(folder)


@pytest.fixture
def server(host: Host) -> Iterator[Server]:
    """cvm-qmail serving `host` on a Unix socket."""
    with serving(host) as running:
        yield running
