"""The sandbox lets a worker reach its database, by whatever way its settings name, and nothing else."""

from __future__ import annotations

import os
import socket

import pytest
from databases import SqlHost, network
from plugins.attempting import ATTEMPTS
from serving import Server, serving, until
from vcorpus import CVM_VPOPMAIL

from cvm_qmail.process import landlock, policies, sandbox
from cvm_vpopmail.credentials import Password
from cvm_vpopmail.credentials import Server as Place
from cvm_vpopmail.dialects import DIALECTS
from cvm_vpopmail.tables.network import network as network_for

pytestmark = [
    pytest.mark.root,
    pytest.mark.peer("mariadbd", "pg_ctlcluster", "setpriv"),
    pytest.mark.skipif(landlock.version() < 4, reason="PEER MISSING: a kernel with Landlock 4"),
]


def said(server: Server) -> tuple[int, int]:
    return server.ask("bob", "example.com").code, server.ask("nobody", "example.com").code


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_database_by_address_and_by_name(host: SqlHost, name: str) -> None:
    with (
        network(host.database.socket) as way,
        serving(
            host, program=CVM_VPOPMAIL, as_service=True, CVM_VPOPMAIL_SQL_SERVERS=f"{name}:{way.port}", CVM_WORKERS="1"
        ) as server,
    ):
        assert said(server) == (0, 100)
        assert "refused" not in server.log.read_text()


def test_a_primary_that_is_asked_before_a_rejection(host: SqlHost) -> None:
    with network(host.database.socket) as way, network(host.database.socket) as primary:
        places = {
            "CVM_VPOPMAIL_SQL_SERVERS": f"127.0.0.1:{way.port}",
            "CVM_VPOPMAIL_SQL_PRIMARY": f"localhost:{primary.port}",
        }
        with serving(host, program=CVM_VPOPMAIL, as_service=True, CVM_WORKERS="1", **places) as server:
            assert said(server) == (0, 100)
            assert "refused" not in server.log.read_text()


def test_a_file_that_names_another_server_counts_at_once(host: SqlHost) -> None:
    """A worker that cannot reach it any more is replaced."""
    with network(host.database.socket) as first, network(host.database.socket) as second:
        host.use(port=first.port)
        with serving(host, program=CVM_VPOPMAIL, CVM_WORKERS="1", CVM_SANDBOX="required") as server:
            assert said(server) == (0, 100)
            host.use(port=second.port)
            with first.swallowing():
                until(lambda: said(server) == (0, 100), "the new server is asked")
            assert "sandbox" not in server.log.read_text()


def test_no_other_port_can_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as its, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [listening.getsockname()[1] for listening in (its, other)]
        place = Place("127.0.0.1", ports[0], "", "user", Password(b""), "vpopmail")
        ready, result = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                asks = network_for(DIALECTS["mysql"], [place])
                calls = policies.worker(asks, os.getpid())
                sandbox.enter("worker", "required", calls, [landlock.READ_ALL], asks.reached)
                for port in ports:
                    try:
                        ATTEMPTS["connect"](b"%d" % port)
                        os.write(result, b"reached ")
                    except PermissionError:
                        os.write(result, b"refused ")
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(ready, 100) == b"reached refused "
