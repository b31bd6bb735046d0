"""The gateway's counters for Prometheus, in the formats of `observe.openmetrics`."""

from __future__ import annotations

from collections.abc import Iterator

from cvm_qmail.gateway.statistics import BUCKETS, Snapshot
from cvm_qmail.observe import openmetrics
from cvm_qmail.observe.stats import Stats
from cvm_qmail.protocols.http import Response


def page(accept: str, snapshot: Snapshot, daemon: Stats | None = None) -> Response:
    """All counters in the format that the client prefers; with the daemon's, if they are known."""
    of_daemon = () if daemon is None else openmetrics.lines(daemon)
    wanted = openmetrics.wants_openmetrics(accept)
    body = openmetrics.text((*of_daemon, *_lines(snapshot)), openmetrics=wanted)
    return Response(200, body.encode(), openmetrics.CONTENT_TYPE if wanted else openmetrics.PLAIN_TYPE)


def _lines(snapshot: Snapshot) -> Iterator[str]:
    yield from _head("cvm_gateway_requests", "counter", "Questions answered.")
    for (listener, result, reason), count in sorted(snapshot.requests.items()):
        labels = _labels(listener=listener, outcome=result, reason=reason or "none")
        yield f"cvm_gateway_requests_total{labels} {count}"
    yield from _head("cvm_gateway_request_seconds", "histogram", "Time to an answer.", unit="seconds")
    for listener, counts in sorted(snapshot.latency.items()):
        yield from _histogram(listener, counts)
    yield from _head("cvm_gateway_events", "counter", "Malformed requests, and connections closed for others.")
    for event, count in sorted(snapshot.events.items()):
        yield f"cvm_gateway_events_total{_labels(event=event)} {count}"
    yield from _head("cvm_gateway_backend_up", "gauge", "1: the CVM module answers.")
    for backend in snapshot.backends:
        yield f"cvm_gateway_backend_up{_labels(module=backend.module)} {int(backend.up is not False)}"
    yield from _head("cvm_gateway_backend_asking", "gauge", "Questions that wait for the CVM module.")
    for backend in snapshot.backends:
        yield f"cvm_gateway_backend_asking{_labels(module=backend.module)} {backend.asking}"
    yield from _head("cvm_gateway_backend_failures", "counter", "Questions that the CVM module did not answer.")
    for backend in snapshot.backends:
        for reason, count in sorted(backend.failures.items()):
            yield f"cvm_gateway_backend_failures_total{_labels(module=backend.module, reason=reason)} {count}"
    for name, meaning, value in (
        ("connections", "Connections of clients.", snapshot.connections),
        ("throttled", "Clients that are throttled.", len(snapshot.throttled)),
        ("start_time_seconds", "When the gateway was started, in seconds since 1970.", round(snapshot.started, 3)),
    ):
        unit = "seconds" if name.endswith("_seconds") else ""
        yield from _head(f"cvm_gateway_{name}", "gauge", meaning, unit=unit)
        yield f"cvm_gateway_{name} {value}"


def _head(name: str, kind: str, meaning: str, *, unit: str = "") -> Iterator[str]:
    yield f"# TYPE {name} {kind}"
    if unit:
        yield f"# UNIT {name} {unit}"
    yield f"# HELP {name} {meaning}"


def _histogram(listener: str, counts: tuple[float, ...]) -> Iterator[str]:
    total = 0
    for bound, count in zip((*BUCKETS, None), counts[:-1], strict=True):
        total += int(count)
        yield f"cvm_gateway_request_seconds_bucket{_labels(listener=listener, le=_bound(bound))} {total}"
    yield f"cvm_gateway_request_seconds_count{_labels(listener=listener)} {total}"
    yield f"cvm_gateway_request_seconds_sum{_labels(listener=listener)} {counts[-1]:.6f}"


def _bound(bound: float | None) -> str:
    return "+Inf" if bound is None else str(bound)


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
