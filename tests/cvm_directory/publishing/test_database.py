"""Which server a publication goes to."""

from __future__ import annotations

import socket

import pytest
from directories import Directory
from mysql_peers import FINE, answering, greeting, packet, received

from cvm_directory.publishing.database import connected
from cvm_directory.settings import DirectorySettings
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables

pytestmark = [pytest.mark.root, pytest.mark.peer("mariadbd", "setpriv")]


def test_a_server_that_fails_after_the_login_is_closed_and_the_next_one_is_taken(directory: Directory) -> None:
    closed: list[bytes] = []

    def answer(peer: socket.socket) -> None:
        peer.sendall(greeting(0))
        received(peer)
        peer.sendall(packet(2, FINE))
        while b"read_only" not in received(peer):
            peer.sendall(packet(1, FINE))
        peer.sendall(packet(1, b"\xff\x15\x04#08S01shutting down"))
        while (command := received(peer))[:1] == b"\3":  # a query
            peer.sendall(packet(1, FINE))
        closed.append(command)

    with answering(answer) as server:
        servers = f"127.0.0.1:{server.port} {directory.database.socket}"
        settings = Settings.from_environment(directory.environment("publisher", CVM_DIRECTORY_SERVERS=servers))
        database = connected(Tables(settings), DirectorySettings.from_settings(settings))
        assert database.published(["a.example"]) == {}
        database.close()
    assert closed in ([b"\1"], [b""])
