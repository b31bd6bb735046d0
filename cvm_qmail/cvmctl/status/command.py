"""cvmctl status: what runs, how it is, and what it has answered.

Exit status: 0 it is well; 1 degraded; 111 down, or no counters.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import click

from cvm_qmail.cvmctl.host.counters import by_count, complaints, described, is_alive, stats_of, time_of
from cvm_qmail.cvmctl.status import gateway as gateways
from cvm_qmail.cvmctl.ui.output import SOME, TEMPORARY, Node, json_line, tree
from cvm_qmail.observe.backends import Backend
from cvm_qmail.observe.stats import Stats
from cvm_qmail.process.sandbox import described as described_sandbox

TOP = 10
"""Reasons that are shown."""

SHARES = (0.5, 0.9, 0.99)


@click.command()
@click.argument("path", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def status(context: click.Context, path: str | None, *, as_json: bool) -> None:
    """Show what a server is doing: version, workers, requests by outcome and reason, latencies.

    PATH is the server's socket, or its file of counters; without it CVM_STATS or CVM_LOOKUP, else the usual
    places.  For a gateway it is its http listener, as cvm-gateway names it; CVM_GATEWAY_TOKEN is its token.
    The exit status is 0 if it is well, 1 if something is wrong with it, and 111 if it is down.

    \b
      cvmctl status
      cvmctl status /run/cvm-rcptto/socket --json
      cvmctl status http:127.0.0.1:8080
    """  # noqa: D301  click knows the control character, not the backslash
    if path is not None and path.startswith(gateways.SCHEME):
        _gateway(context, path, as_json=as_json)
    stats = stats_of(path)
    wrong = complaints(stats, time.time())
    if as_json:
        json_line(as_object(stats, wrong))
    else:
        tree(shown(stats, wrong))
    context.exit(0 if not wrong else SOME if is_alive(stats.about.pid) else TEMPORARY)


def _gateway(context: click.Context, name: str, *, as_json: bool) -> NoReturn:
    gateway = gateways.gateway_at(name)
    if as_json:
        json_line(gateways.as_object(gateway))
    else:
        tree(gateways.shown(gateway))
    context.exit(SOME if gateway.complaints else 0)


def as_object(stats: Stats, wrong: list[str]) -> dict[str, object]:
    """All of it, for scripts."""
    return {
        "state": "well" if not wrong else "degraded" if is_alive(stats.about.pid) else "down",
        "complaints": wrong,
        **{name: value for name, value in stats.about._asdict().items() if name != "words"},
        "supervisor": dict(stats.supervisor),
        "requests": [
            {"outcome": outcome, "reason": reason, "count": count}
            for (outcome, reason), count in by_count(stats.requests)
        ],
        "total": stats.total,
        "cached": stats.repeats,
        "latency": {f"{share:g}": stats.percentile(share) for share in SHARES},
        "mean": stats.seconds / stats.total if stats.total else 0.0,
        "backends": [
            {
                **_backend(backend),
                "workers": {
                    str(process.pid): _backend(seen)
                    for process in stats.processes
                    for seen in process.backends
                    if seen.name == backend.name
                },
            }
            for backend in stats.backends
        ],
        "supervisor_process": {"pid": stats.about.pid, "about": stats.own},
        "shadow_process": {"pid": stats.shadow.pid, "about": stats.shadow.about} if stats.shadow else None,
        "processes": [{"pid": process.pid, "about": process.about} for process in stats.processes],
    }


def shown(stats: Stats, wrong: list[str]) -> Iterator[Node]:
    """The same for people."""
    about, supervisor = stats.about, stats.supervisor
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(about.started))
    yield Node(
        f"{about.program} {about.version} at {about.address}: {'; '.join(wrong) or 'well'}",
        "failure" if wrong else "yes",
        [
            Node(f"process {about.pid}, user {about.user}, since {since}"),
            Node(
                f"{supervisor['workers']} workers, {supervisor['spares']} of them spare, {supervisor['busy']} busy;"
                f" {supervisor['restarts']} restarts, {supervisor['hangs']} hangs, {supervisor['pauses']} pauses"
            ),
            *_backends(stats),
            Node(f"sandbox {about.sandbox}", children=[*_sandboxes(stats)]),
            Node("settings", children=[Node(f"{name}={value}") for name, value in sorted(about.settings.items())]),
        ],
    )
    yield Node(f"{stats.total} requests, {stats.repeats} from the cache", "title", [*_requests(stats)])
    if stats.total:
        parts = [f"{share:.0%} {time_of(stats.percentile(share))}" for share in SHARES]
        yield Node(f"latency: mean {time_of(stats.seconds / stats.total)}, at most {', '.join(parts)}", "title")


def _backend(backend: Backend) -> dict[str, object]:
    return {**backend._asdict(), "state": backend.state.word, "error": backend.error or None}


def _backends(stats: Stats) -> Iterator[Node]:
    """One line for each, and what workers saw where they do not agree."""
    now = time.time()
    lines = []
    for backend in stats.backends:
        seen = [(process.pid, other) for process in stats.processes for other in process.backends]
        seen = [(pid, other) for pid, other in seen if other.name == backend.name]
        differ = len({other.state for _, other in seen}) > 1
        children = [Node(f"worker {pid}: {described(other, now)}") for pid, other in seen] if differ else []
        style = "failure" if backend.bad else ""
        lines.append(Node(f"{backend.name}: {described(backend, now)}", style, children))
    if lines:
        yield Node("back ends", children=lines)


def _sandboxes(stats: Stats) -> Iterator[Node]:
    yield _sandbox(f"supervisor {stats.about.pid}", stats.own)
    for process in stats.processes:
        yield _sandbox(f"worker {process.pid}", process.about)
    if stats.shadow is not None:
        yield _sandbox(f"shadow process {stats.shadow.pid}", stats.shadow.about)
    elif "CVM_SHADOW" in stats.about.settings:
        yield Node("shadow process: none runs now")


def _sandbox(name: str, about: Mapping[str, Any]) -> Node:
    found = about.get("sandbox")
    return Node(f"{name}: {described_sandbox(found) if found else 'is not in it yet'}")


def _requests(stats: Stats) -> Iterator[Node]:
    for outcome, count in sorted(stats.outcomes().items(), key=lambda item: -item[1]):
        reasons = [item for item in by_count(stats.requests) if item[0][0] == outcome]
        children = [Node(f"{number} {reason}") for (_, reason), number in reasons[:TOP]]
        yield Node(f"{count} {outcome}", children=children)
