"""Servers that no MySQL is: one in the middle that wants the password, and one that never ends."""

from __future__ import annotations

import socket
import time

import pytest
from mysql_peers import FINE, OFFERS_TLS, answering, greeting, packet, received

from cvm_vpopmail.tables import mysql
from cvm_vpopmail.tables.connection import DatabaseError, Select, Terms

SELECT = Select(("pw_dir",), "vpopmail", ("pw_name",))


def terms(tls: str, seconds: float = 30.0) -> Terms:
    return Terms(tls, "", "utf8mb4", seconds, seconds, time.monotonic() + seconds)


@pytest.mark.parametrize("tls", ["on", "verify"])
def test_a_server_that_offers_no_tls_gets_nothing_where_it_is_demanded(tls: str) -> None:
    """Not the name, nor what proves the password: whoever is between could ask for more."""
    sent: list[bytes] = []

    def answer(peer: socket.socket) -> None:
        peer.sendall(greeting(0))
        sent.append(received(peer))

    with answering(answer) as server, pytest.raises(DatabaseError) as raised:
        mysql.connect(server, terms(tls))
    assert (raised.value.reason, raised.value.lost) == ("database-refused", True)
    assert "TLS" in raised.value.detail
    assert sent == [b""]


def test_no_tls_where_it_is_off_though_the_server_offers_it() -> None:
    wanted: list[int] = []

    def answer(peer: socket.socket) -> None:
        peer.sendall(greeting(OFFERS_TLS))
        wanted.append(int.from_bytes(received(peer)[:4], "little") & OFFERS_TLS)

    with answering(answer) as server, pytest.raises(DatabaseError):
        mysql.connect(server, terms("off"))
    assert wanted == [0]


def test_when_the_time_is_over_an_answer_that_is_there_does_not_count() -> None:
    """Else a server that sends a byte now and then would be waited for without end."""

    def answer(peer: socket.socket) -> None:
        peer.sendall(greeting(0))
        received(peer)
        peer.sendall(packet(2, FINE))
        while received(peer):
            peer.sendall(packet(1, FINE))

    with answering(answer) as server:
        connection = mysql.connect(server, terms("off"))
        with pytest.raises(DatabaseError) as raised:
            connection.rows(SELECT, [b"bob"], time.monotonic() - 1)
        connection.close()
    assert (raised.value.reason, raised.value.lost) == ("database-slow", True)
