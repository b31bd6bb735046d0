"""The counters of the daemon, for /metrics, if it is on the same host and counts.

Invariants: a file that is missing, or of another version, is not an error of the gateway: it shows only its own
counters.
"""

from __future__ import annotations

from cvm_qmail.gateway.settings import Settings
from cvm_qmail.observe.stats import SUFFIX, OtherVersion, Stats, read


def path_of(settings: Settings) -> str | None:
    """The file in which the daemon counts; None: it is on another host, or there is none."""
    if settings.stats is not None:
        return settings.stats or None
    scheme, _, path = (settings.module or "").partition(":")
    return path + SUFFIX if scheme == "cvm-local" else None


def counters(settings: Settings) -> Stats | None:
    """The counters now."""
    path = path_of(settings)
    if path is None:
        return None
    try:
        return read(path)
    except (OSError, OtherVersion, ValueError):
        return None
