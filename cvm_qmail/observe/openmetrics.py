"""A server's counters as text for Prometheus and its relatives, in either of two formats.

    OpenMetrics 1.0    for scrapers that ask for it: a counter's family has no "_total", and units have a line
    text 0.0.4         for all others, promtool, and the textfile collector of the node exporter

Source: OpenMetrics 1.0; Prometheus, exposition formats.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from cvm_qmail.observe.stats import BUCKETS, Stats
from cvm_qmail.tables.backends import BackendState

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_WEIGHT = re.compile(r"(0(\.[0-9]{0,3})?|1(\.0{0,3})?)")

_COUNTERS = {
    "restarts": "Workers that ended unexpectedly, and were replaced.",
    "hangs": "Workers that were killed in a lookup that hung.",
    "pauses": "Workers that were killed since they did not run, or their lookup took too long.",
    "refusals": "System calls that the sandbox refused to a worker.",
}
_ENDS = {"counter": "_total", "info": "_info"}
"""What the names of these families end with in the older format."""

_OLDER_TYPES = {"info": "gauge"}
"""Types that it does not have."""

_GAUGES = {
    "workers": "Worker processes.",
    "spares": "Spare workers among them.",
    "busy": "Workers that are in a lookup.",
    "stopped": "Workers that a signal has stopped.",
    "quarantined": "Paths that are skipped, since a lookup hung there.",
}


def wants_openmetrics(accept: str) -> bool:
    """Whether the header Accept of a request names this format, and none that it prefers."""
    return 0.0 < _quality(accept, "application/openmetrics-text") >= _quality(accept, "text/plain")


def _quality(accept: str, kind: str) -> float:
    """A client's preference for a format, from 0 to 1 (RFC 9110, 12.5.1); 0 if it does not name it."""
    best = 0.0
    for choice in accept.split(","):
        name, *parameters = (part.strip().lower() for part in choice.split(";"))
        weights = [part.removeprefix("q=").strip() for part in parameters if part.startswith("q=")]
        if name == kind:
            best = max(best, float(weights[0]) if weights and _WEIGHT.fullmatch(weights[0]) else 1.0)
    return best


def exposition(stats: Stats, *, openmetrics: bool = False) -> str:
    """The whole text."""
    return text(lines(stats), openmetrics=openmetrics)


def text(found: Iterable[str], *, openmetrics: bool) -> str:
    """Lines in OpenMetrics as the text of either format."""
    return "".join(f"{line}\n" for line in (_open if openmetrics else _plain)(found))


def _open(found: Iterable[str]) -> Iterator[str]:
    yield from found
    yield "# EOF"


def _plain(found: Iterable[str]) -> Iterator[str]:
    """The same in the older format.  A family's TYPE comes before its HELP."""
    kinds: dict[str, str] = {}
    for line in found:
        mark, _, rest = line.partition(" ")
        words = rest.split(" ", 2)
        if mark != "#":
            yield line
            continue
        what, family, value = words
        if what == "TYPE":
            kinds[family] = value
            value = _OLDER_TYPES.get(value, value)
        if what != "UNIT":
            yield f"# {what} {family}{_ENDS.get(kinds[family], '')} {value}"


def lines(stats: Stats) -> Iterator[str]:
    """Its lines as OpenMetrics has them, without the last one."""
    server = labels(address=stats.about.address)
    yield from head("cvm_build", "info", "What runs.")
    build = labels(program=stats.about.program, version=stats.about.version, address=stats.about.address)
    yield f"cvm_build_info{{{build}}} 1"
    yield from head("cvm_start_time_seconds", "gauge", "When the server started, in seconds since 1970.", "seconds")
    yield f"cvm_start_time_seconds{{{server}}} {stats.about.started:.3f}"
    yield from head("cvm_seen_time_seconds", "gauge", "When its supervisor last updated the gauges.", "seconds")
    yield f"cvm_seen_time_seconds{{{server}}} {stats.supervisor['seen']}"
    yield from head("cvm_requests", "counter", "Requests answered, by outcome and reason.")
    for (outcome, reason), count in sorted(stats.requests.items()):
        yield f"cvm_requests_total{{{server},{labels(outcome=outcome, reason=reason)}}} {count}"
    yield from head("cvm_cached", "counter", "Requests that were answered from the cache.")
    yield f"cvm_cached_total{{{server}}} {stats.repeats}"
    yield from head("cvm_request_seconds", "histogram", "Time from a request to its answer.", "seconds")
    total = 0
    for bound, count in zip((*BUCKETS, float("inf")), stats.latency, strict=True):
        total += count
        le = "+Inf" if bound == float("inf") else f"{bound:g}"
        yield f"cvm_request_seconds_bucket{{{server},{labels(le=le)}}} {total}"
    yield f"cvm_request_seconds_count{{{server}}} {total}"
    yield f"cvm_request_seconds_sum{{{server}}} {stats.seconds:.6f}"
    for name, meaning in _COUNTERS.items():
        yield from head(f"cvm_worker_{name}", "counter", meaning)
        yield f"cvm_worker_{name}_total{{{server}}} {stats.supervisor[name]}"
    for name, meaning in _GAUGES.items():
        yield from head(f"cvm_{name}", "gauge", meaning)
        yield f"cvm_{name}{{{server}}} {stats.supervisor[name]}"
    yield from head("cvm_backend_up", "gauge", "1: the back end answered when it was asked last.")
    known = [backend for backend in stats.backends if backend.state is not BackendState.UNKNOWN]
    for backend in known:
        yield f"cvm_backend_up{{{server},{labels(backend=backend.name)}}} {int(not backend.bad)}"
    yield from head("cvm_backend_seen_time_seconds", "gauge", "When that was, in seconds since 1970.", "seconds")
    for backend in known:
        yield f"cvm_backend_seen_time_seconds{{{server},{labels(backend=backend.name)}}} {backend.seen:.3f}"


def head(name: str, kind: str, meaning: str, unit: str = "") -> Iterator[str]:
    """The lines that begin a family."""
    yield f"# TYPE {name} {kind}"
    if unit:
        yield f"# UNIT {name} {unit}"
    yield f"# HELP {name} {meaning}"


def labels(**values: str) -> str:
    """Labels with their values, as they stand between braces."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in values.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
