"""The sockets that database servers need, for the sandbox.

Invariants: a worker declares them before it enters the sandbox.  The file that names the servers may change: a worker
that would need others ends after the current request, and the one in its place declares those.
"""

from __future__ import annotations

import ipaddress
import os
import signal
from collections.abc import Sequence

from cvm_qmail.answer import Unavailable
from cvm_qmail.process import sandbox
from cvm_qmail.process.network import EVERYTHING, Network
from cvm_qmail.tables.door import Tables
from cvm_vpopmail import sqlconfig
from cvm_vpopmail.credentials import Server
from cvm_vpopmail.dialects import Dialect
from cvm_vpopmail.sqlconfig import Options


def network(dialect: Dialect, servers: Sequence[Server]) -> Network:
    """The sockets for these servers.  Drivers also look up their own user, perhaps through nscd."""
    over_tcp = [server for server in servers if not (server.socket or server.host.startswith("/"))]
    ports = frozenset(server.port or dialect.port for server in over_tcp)
    return Network(unix=True, ports=ports, names=not all(map(_is_address, over_tcp)))


def declared(tables: Tables, options: Options) -> Network:
    """The sockets for the servers that the settings or the file name now."""
    if not tables.lasting:
        return EVERYTHING
    tables.request(cacheable=False)
    try:
        return network(options.dialect, sqlconfig.all_servers(tables, options))
    except Unavailable:
        return Network(unix=True, ports=frozenset({options.dialect.port}), names=True)


def check(allowed: Network, dialect: Dialect, server: Server) -> None:
    """Raises `Unavailable` if this process cannot reach the server any more; it ends when it has said so."""
    wanted = network(dialect, [server])
    if wanted | allowed == allowed or sandbox.report()["process"] != "worker":
        return
    os.kill(os.getpid(), signal.SIGTERM)
    raise Unavailable(
        "database-settings", "has named another server since this process started; the process is replaced"
    )


def _is_address(server: Server) -> bool:
    try:
        ipaddress.ip_address(server.host)
    except ValueError:
        return False
    return True
