"""What the tests share: whether we are root, and hosts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator

import durations
import pytest
from databases import Database, MariaDb, PostgreSql, running
from hosts import Host, plain_host, temporary_directory
from hypothesis import HealthCheck, settings
from registered import only_registered_words
from serving import Server, serving

import cvm_qmail

os.umask(int(os.environ.get("TESTS_UMASK", "022"), 8))  # whatever it was: hosts are made with it

REQUIRED = os.environ.get("PEERS_REQUIRED") == "1"
"""Whether a check that cannot be made is a failure, as in CI."""

if os.environ.get("WHEEL") == "1":
    assert "site-packages" in cvm_qmail.__file__, f"{cvm_qmail.__file__} is not the wheel that was to be tested"

HYPOTHESIS = os.environ.get("HYPOTHESIS_PROFILE", "suite")
"""How hard properties are tried: `suite`, the same examples each time, or `long`, others each time.

Nothing is timed, and nothing is kept between runs.
"""

EXAMPLES = {"suite": 100, "long": 5000}

for profile, examples in EXAMPLES.items():
    settings.register_profile(
        profile,
        deadline=None,
        database=None,
        derandomize=profile == "suite",
        max_examples=examples,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile(HYPOTHESIS)

MISSING = pytest.StashKey[str]()
"""What a test that is required lacks."""

NOT_ROOT = "NOT ROOT: homes belong to several users"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what cannot be tested here, loudly; where all is required, nothing else is run, and that fails.

    The longest files come first: a long one that is begun last runs alone, while the other cores have nothing to do.
    """
    seconds = durations.known()
    items.sort(key=lambda item: seconds.get(durations.place(item), 0.0), reverse=True)
    lacking = {item: list(_lacking(item)) for item in items}
    if REQUIRED and any(lacking.values()):
        items[:] = [item for item in items if lacking[item]]
        for item in items:
            item.stash[MISSING] = ", ".join(lacking[item])
        return
    for item, reasons in lacking.items():
        if reasons:
            item.add_marker(pytest.mark.skip(reason=", ".join(reasons)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two more than there are cores: about half of the time a test waits, for a server or for a time-out."""
    return len(os.sched_getaffinity(0)) + 2


def _lacking(item: pytest.Item) -> Iterator[str]:
    """Why this cannot be tested here."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        yield NOT_ROOT
    for marker in item.iter_markers("peer"):
        absent = [name for name in marker.args if shutil.which(name) is None]
        if absent:
            yield f"PEER MISSING: {', '.join(absent)}"
    for marker in item.iter_markers("skipif"):
        if marker.args[0]:
            yield marker.kwargs["reason"]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fails what is required and cannot be tested."""
    if MISSING in item.stash:
        pytest.fail(f"PEERS_REQUIRED, but {item.stash[MISSING]}", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What turns out to be impossible only when it is tried fails, too, where all is required."""
    report = yield
    if REQUIRED and report.skipped:
        report.outcome = "failed"
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        report.longrepr = f"PEERS_REQUIRED, but {reason}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Writes how long each file took, where that is wished."""
    if durations.WRITING:
        reports = [report for kind in terminalreporter.stats.values() for report in kind]
        durations.write([report for report in reports if isinstance(report, pytest.TestReport)])


@pytest.fixture(scope="session", autouse=True)
def _registered() -> Iterator[None]:
    """No reason word without a row in the registry."""
    with only_registered_words():
        yield


@pytest.fixture
def host() -> Iterator[Host]:
    """A plain host, see `hosts.plain_host`."""
    with temporary_directory() as directory:
        yield plain_host(directory)


@pytest.fixture
def server(host: Host) -> Iterator[Server]:
    """cvm-qmail serving `host` on a Unix socket."""
    with serving(host) as running:
        yield running


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Database]:
    """A MariaDB server for all tests."""
    with running(MariaDb) as database:
        yield database


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Database]:
    """A PostgreSQL server for all tests."""
    with running(PostgreSql) as database:
        yield database
