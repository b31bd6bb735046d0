"""The gateway's counters for Prometheus, in the formats of `observe.openmetrics`."""

from __future__ import annotations

from collections.abc import Iterator

from cvm_qmail.gateway.statistics import BUCKETS, Snapshot
from cvm_qmail.observe import openmetrics
from cvm_qmail.observe.openmetrics import head, labels
from cvm_qmail.observe.stats import Stats
from cvm_qmail.protocols.http import Response


def page(accept: str, snapshot: Snapshot, daemon: Stats | None = None) -> Response:
    """All counters in the format that the client prefers; with the daemon's, if they are known."""
    of_daemon = () if daemon is None else openmetrics.lines(daemon)
    wanted = openmetrics.wants_openmetrics(accept)
    body = openmetrics.text((*of_daemon, *_lines(snapshot)), openmetrics=wanted)
    return Response(200, body.encode(), openmetrics.CONTENT_TYPE if wanted else openmetrics.PLAIN_TYPE)


def _lines(snapshot: Snapshot) -> Iterator[str]:
    yield from head("cvm_gateway_requests", "counter", "Questions answered.")
    for (listener, result, reason), count in sorted(snapshot.requests.items()):
        given = labels(listener=listener, outcome=result, reason=reason or "none")
        yield f"cvm_gateway_requests_total{{{given}}} {count}"
    yield from head("cvm_gateway_request_seconds", "histogram", "Time to an answer.", "seconds")
    for listener, counts in sorted(snapshot.latency.items()):
        yield from _histogram(listener, counts)
    yield from head("cvm_gateway_events", "counter", "Malformed requests, and connections closed for others.")
    for event, count in sorted(snapshot.events.items()):
        yield f"cvm_gateway_events_total{{{labels(event=event)}}} {count}"
    yield from head("cvm_gateway_backend_up", "gauge", "1: the CVM module answers.")
    for backend in snapshot.backends:
        yield f"cvm_gateway_backend_up{{{labels(module=backend.module)}}} {int(backend.up is not False)}"
    yield from head("cvm_gateway_backend_asking", "gauge", "Questions that wait for the CVM module.")
    for backend in snapshot.backends:
        yield f"cvm_gateway_backend_asking{{{labels(module=backend.module)}}} {backend.asking}"
    yield from head("cvm_gateway_backend_failures", "counter", "Questions that the CVM module did not answer.")
    for backend in snapshot.backends:
        for reason, count in sorted(backend.failures.items()):
            yield f"cvm_gateway_backend_failures_total{{{labels(module=backend.module, reason=reason)}}} {count}"
    for name, meaning, value in (
        ("connections", "Connections of clients.", snapshot.connections),
        ("throttled", "Clients that are throttled.", len(snapshot.throttled)),
        ("start_time_seconds", "When the gateway was started, in seconds since 1970.", round(snapshot.started, 3)),
    ):
        unit = "seconds" if name.endswith("_seconds") else ""
        yield from head(f"cvm_gateway_{name}", "gauge", meaning, unit)
        yield f"cvm_gateway_{name} {value}"


def _histogram(listener: str, counts: tuple[float, ...]) -> Iterator[str]:
    total = 0
    for bound, count in zip((*BUCKETS, None), counts[:-1], strict=True):
        total += int(count)
        yield f"cvm_gateway_request_seconds_bucket{{{labels(listener=listener, le=_bound(bound))}}} {total}"
    yield f"cvm_gateway_request_seconds_count{{{labels(listener=listener)}}} {total}"
    yield f"cvm_gateway_request_seconds_sum{{{labels(listener=listener)}}} {counts[-1]:.6f}"


def _bound(bound: float | None) -> str:
    return "+Inf" if bound is None else str(bound)
