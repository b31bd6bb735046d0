"""The counters of a server on this host, found by its socket or by their own file."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from cvm_qmail.cvmctl.ui.output import PERMANENT, TEMPORARY, Failure, counted
from cvm_qmail.observe.backends import Backend
from cvm_qmail.observe.stats import SUFFIX, OtherVersion, Stats, read
from cvm_qmail.tables.backends import BackendState

USUAL = ("/run/cvm-rcptto/socket", "/run/cvm-qmail/socket", "/var/run/cvm-rcptto/socket")
"""Where the services of contrib have their sockets."""

STALE = 5.0
"""Seconds without an update by the supervisor after which the server is not well."""


def stats_of(path: str | None) -> Stats:
    """The counters of the server with this socket or file of counters; None: of the one that the environment names.

    Raises `Failure`: 111 if there are no counters, 100 if they are of another version.
    """
    for candidate in _candidates(path):
        try:
            return read(candidate)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OtherVersion as other:
            raise Failure(str(other), PERMANENT) from None
        except OSError as error:
            raise Failure(f"{candidate}: {error.strerror}", TEMPORARY) from None
    where = path or "; ".join(_candidates(None))
    raise Failure(f"no counters at {where}: is the server running, and CVM_STATS not empty?", TEMPORARY)


def _candidates(path: str | None) -> list[str]:
    if path is not None:
        return [path, path + SUFFIX] if path.endswith(SUFFIX) else [path + SUFFIX, path]
    if named := os.environ.get("CVM_STATS"):
        return [named]
    module = os.environ.get("CVM_LOOKUP", "")
    sockets = [module.removeprefix("cvm-local:")] if module.startswith("cvm-local:") else list(USUAL)
    return [socket + SUFFIX for socket in sockets]


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    return os.path.exists(f"/proc/{pid}")


def complaints(stats: Stats, now: float) -> list[str]:
    """What is wrong with a server, in words; empty: it is well."""
    about, supervisor = stats.about, stats.supervisor
    if not is_alive(about.pid):
        return [f"down: process {about.pid} has ended"]
    found = []
    if now - supervisor["seen"] > STALE and now - about.started > STALE:
        found.append(f"its supervisor has not run for {now - supervisor['seen']:.0f} seconds")
    if supervisor["workers"] < about.workers and now - about.started > STALE:
        found.append(f"{supervisor['workers']} of {about.workers} workers run")
    if supervisor["stopped"]:
        found.append(f"{counted(supervisor['stopped'], 'worker')} stopped")
    if supervisor["quarantined"]:
        found.append(f"{counted(supervisor['quarantined'], 'path')} skipped, since lookups hung there")
    found += [f"{backend.name} {described(backend, now)}" for backend in stats.backends if backend.bad]
    return found


def described(backend: Backend, now: float) -> str:
    """The state of a back end, in words."""
    if backend.state is BackendState.UNKNOWN:
        return backend.state.word
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(backend.since))
    words = f"{backend.state.word} since {since}"
    if backend.error:
        words += f", last error {backend.error} {ago(now - backend.failed)}"
    if backend.bad:
        words += f", asked last {ago(now - backend.seen)}"
    return words


def ago(seconds: float) -> str:
    """A time span before now, in words."""
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name} ago"
    return f"{max(seconds, 0):.0f} seconds ago"


def by_count(counts: Mapping[tuple[str, str], int]) -> list[tuple[tuple[str, str], int]]:
    """Outcomes with reasons, the most frequent first."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def time_of(seconds: float) -> str:
    """Seconds in a suitable unit."""
    if seconds == float("inf"):
        return "more than 5 s"
    if seconds >= 1:
        return f"{seconds:g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} us"
