"""Tables of programs on a file server that is dead: one request waits, then they fail fast, and nobody else notices."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress

import pytest
from hanging import end, hanging
from hosts import Host
from serving import serving

from cvm_qmail.protocols.cvm.client import NoAnswer

pytestmark = [
    pytest.mark.root,
    pytest.mark.peer("unshare"),
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="PEER MISSING: /dev/fuse"),
]

DEADLINE = 1.0


@pytest.mark.parametrize("line", ["|fastforward -d dead/t.cdb", "|dot-forward dead/.forward", "|vdeliver"])
def test_a_table_on_a_dead_file_server_is_a_temporary_failure_of_its_own_addresses(host: Host, line: str) -> None:
    dead = host.directory("home/joe/dead", uid=5001, gid=5001)
    host.file("home/joe/.qmail-default", line + "\n", uid=5001, gid=5001)
    host.directory("home/joe/.vmailmgr", uid=5001, gid=5001)
    host.file("home/joe/.vmailmgr/password-file", "dead/passwd\n", uid=5001, gid=5001)
    with serving(host, wrapper=hanging(dead), CVM_LOOKUP_TIMEOUT=str(int(DEADLINE * 1000))) as server:
        began = time.monotonic()
        with suppress(NoAnswer):
            assert server.ask("joe-any").code not in (0, 100)
        assert time.monotonic() - began >= DEADLINE, "it hangs"
        assert str(dead) in server.logged("killed: its lookup took 1 seconds")
        assert server.ask("joe-other").code not in (0, 100)
        assert "hang-backoff" in server.logged("joe-other")
        assert [server.ask(name).code for name in ("joe", "ann", "nobody")] == [0, 0, 100]
        end(server.process.pid)


def test_a_server_whose_advice_hangs_leaves_no_socket_bound_when_it_ends(host: Host) -> None:
    with serving(host, scheme="cvm-udp", wrapper=hanging(host.root / "control")) as server:
        assert server.stop() == 0
        _, name, port = server.module.split(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as another:
            another.bind((name, int(port)))
