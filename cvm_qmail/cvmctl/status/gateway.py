"""A gateway's own counters and state, from its http listener.

Invariants: a response is used only if it is a gateway's statistics, and only a bounded part of it is read.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException
from typing import Any, NamedTuple

from cvm_qmail.cvmctl.ui.output import PERMANENT, TEMPORARY, Failure, Node, counted, text
from cvm_qmail.gateway.listeners import Listener, parse
from cvm_qmail.gateway.settings import Settings
from cvm_qmail.process import sandbox

SCHEME = "http:"

SECONDS = 10
"""For a response."""

LIMIT = 1 << 20
"""Bytes of a response; 300 seconds and the lists are less than a tenth of it."""

SAID = 200
"""Bytes of an error's response that are shown."""

_LATEST = 1e11
"""Seconds since 1970 that every C library can show."""

_UP = {None: "not asked yet", True: "up", False: "down"}


class Gateway(NamedTuple):
    """What a gateway says of itself."""

    address: str
    pid: int
    about: Mapping[str, Any]
    """Of its process: its sandbox."""
    version: str
    started: float
    outcomes: Mapping[str, int]
    reasons: list[tuple[str, int]]
    modules: list[Module]
    connections: int
    throttled: int
    every: Mapping[str, Any]
    """All that it said."""

    @property
    def complaints(self) -> list[str]:
        """What is wrong with it, in words; empty: it is well."""
        return [f"{module.name} is down: {module.detail}" for module in self.modules if module.up is False]


class Module(NamedTuple):
    """A module that it asks."""

    name: str
    up: bool | None
    """None: it has not been asked yet."""
    since: float
    detail: str
    asking: int


def gateway_at(name: str) -> Gateway:
    """The gateway with this http listener, as `cvm-gateway` names it or as a URL.

    Raises `Failure`: 111 if it does not answer, 100 if `name` is no http listener or the answer is none of a gateway.
    """
    rest = name.removeprefix("http://")
    try:
        listener = parse(name if rest == name else f"http:{rest.removesuffix('/')}")
    except ValueError as error:
        raise Failure(f"{error}", PERMANENT) from None
    body = _fetched(name, listener)
    try:
        return _read(name, json.loads(body))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Failure(f"{name}: the answer is not a gateway's statistics", PERMANENT) from None


def _fetched(name: str, listener: Listener) -> bytes:
    """The body of /v1/statistics.  Raises `Failure`."""
    token = Settings.from_environment().token.value.decode("latin-1")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection = _Connection(listener)
    try:
        connection.request("GET", "/v1/statistics", headers=headers)
        response = connection.getresponse()
        body = response.read(LIMIT)
    except (OSError, HTTPException, ValueError) as error:  # ValueError: a token that no header can have
        raise Failure(f"{name}: {getattr(error, 'strerror', None) or error}", TEMPORARY) from None
    finally:
        connection.close()
    if response.status == 401:
        raise Failure(f"{name}: it requires another token: CVM_GATEWAY_TOKEN", PERMANENT)
    if response.status != 200:
        said = text(body[:SAID].split(b"\n")[0])
        raise Failure(f"{name}: found status {response.status} ({said}), expected 200", PERMANENT)
    return body


class _Connection(HTTPConnection):
    def __init__(self, listener: Listener) -> None:
        super().__init__(listener.host or "localhost", int(listener.port or 80), timeout=SECONDS)
        self._path = listener.path

    def connect(self) -> None:
        """To the Unix socket, if it is one."""
        if self._path is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(os.fsdecode(self._path))


def _read(name: str, found: dict[str, Any]) -> Gateway:
    """Raises ValueError, KeyError, TypeError or AttributeError for what is no gateway's."""
    modules = [
        Module(
            str(row["module"]),
            None if row["up"] is None else bool(row["up"]),
            _moment(row["since"]),
            str(row["detail"]),
            int(row["asking"]),
        )
        for row in found["backends"]
    ]
    return Gateway(
        name,
        int(found["process"]["pid"]),
        dict(found["process"]["about"]),
        str(found["version"]),
        _moment(found["started"]),
        {str(outcome).replace("_", " "): int(count) for outcome, count in found["outcomes"].items()},
        [(str(row["reason"]), int(row["count"])) for row in found["reasons"]],
        modules,
        int(found["connections"]),
        len(found["throttled"]),
        found,
    )


def _moment(value: Any) -> float:
    seconds = float(value)
    if not 0 <= seconds < _LATEST:
        raise ValueError(f"{value}: not a time")
    return seconds


def as_object(gateway: Gateway) -> dict[str, object]:
    """All of it, for scripts."""
    complaints = gateway.complaints
    return {
        "state": "degraded" if complaints else "well",
        "complaints": complaints,
        "program": "cvm-gateway",
        "address": gateway.address,
        **gateway.every,
    }


def shown(gateway: Gateway) -> Iterator[Node]:
    """The same for people."""
    complaints = gateway.complaints
    yield Node(
        f"cvm-gateway {gateway.version} at {gateway.address}: {'; '.join(complaints) or 'well'}",
        "failure" if complaints else "yes",
        [
            Node(f"process {gateway.pid}, since {_time(gateway.started)}"),
            Node(f"{counted(gateway.connections, 'connection')}, {counted(gateway.throttled, 'throttled client')}"),
            Node("modules", children=[_module(module) for module in gateway.modules]),
            Node("sandbox", children=[Node(f"gateway {gateway.pid}: {_confined(gateway)}")]),
        ],
    )
    outcomes = sorted(gateway.outcomes.items(), key=lambda item: -item[1])
    yield Node(
        f"{sum(gateway.outcomes.values())} questions", "title", [Node(f"{count} {name}") for name, count in outcomes]
    )
    if gateway.reasons:
        yield Node("reasons", "title", [Node(f"{count} {reason or 'none'}") for reason, count in gateway.reasons])


def _confined(gateway: Gateway) -> str:
    return sandbox.described(gateway.about.get("sandbox") or {})


def _module(module: Module) -> Node:
    since = f" since {_time(module.since)}" if module.since else ""
    detail = f", {module.detail}" if module.up is False and module.detail else ""
    return Node(
        f"{module.name}: {_UP[module.up]}{since}{detail}, {counted(module.asking, 'waiting question')}",
        "failure" if module.up is False else "",
    )


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
