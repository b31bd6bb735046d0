"""The gateway's sandbox: what it needs after it listens and has loaded its settings.

    files      reads Python, the system's libraries and settings, and what its own settings name; removes its sockets
    sockets    those of its module; with routes, which may change, Unix sockets, UDP and TCP
    otherwise  no program, no process; threads only to look up host names

Invariants: it has been entered before the first client is accepted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence

from cvm_qmail.gateway.daemon_counters import path_of
from cvm_qmail.gateway.settings import Settings
from cvm_qmail.gateway.sockets import Bound
from cvm_qmail.process import landlock, policies, sandbox
from cvm_qmail.process.landlock import Rule
from cvm_qmail.process.network import EVERYTHING, Network
from cvm_qmail.transports.datagram import split

_SYSTEM = ("/usr", "/lib", "/lib64", "/etc", "/run", "/dev", "/proc")


def enter(settings: Settings, bound: Sequence[Bound], routes: str | None) -> None:
    """Gives up all but the above.  Raises `sandbox.Unconfined`.  `routes`: the file with the routes."""
    reach = network(settings, routes)
    rules = [*(Rule(path, landlock.READ) for path in _read(settings, routes)), *_sockets(bound)]
    sandbox.enter("gateway", settings.sandbox, policies.gateway(reach, os.getpid()), rules, reach.reached)


def network(settings: Settings, routes: str | None) -> Network:
    """The sockets that it may open: to its module, or with routes to any."""
    return EVERYTHING if routes is not None else _network(settings.module or "")


def _network(module: str) -> Network:
    scheme, _, address = module.partition(":")
    if scheme == "cvm-local":
        return Network(unix=True)
    if scheme == "cvm-udp":
        return Network(names=True)
    host = address.strip("/")
    try:
        port = int(split(host)[1])
    except ValueError:
        port = 443
    return Network(names=True, ports=frozenset({port}))


def _read(settings: Settings, routes: str | None) -> Iterator[str]:
    """The paths that it may read."""
    yield from _SYSTEM
    yield from {sys.prefix, sys.base_prefix, sys.exec_prefix, *filter(os.path.isdir, sys.path)}
    for file in (routes, settings.https_ca, settings.https_certificate, path_of(settings)):
        if file is not None:
            yield os.path.dirname(os.path.abspath(file))


def _sockets(bound: Sequence[Bound]) -> Iterator[Rule]:
    for made in bound:
        path = made.listener.path
        if path is not None:
            yield Rule(os.path.dirname(os.path.abspath(path)), landlock.REMOVE)
