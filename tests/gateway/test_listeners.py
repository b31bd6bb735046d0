"""The names of listeners."""

from __future__ import annotations

import socket

import pytest

from cvm_qmail.gateway.listeners import Listener, parse


@pytest.mark.parametrize(
    ("name", "path", "host", "port"),
    [
        ("socketmap:unix:/run/x", b"/run/x", "", ""),
        ("socketmap:inet:127.0.0.1:10025", None, "127.0.0.1", "10025"),
        ("policy:unix:/run/a:b", b"/run/a:b", "", ""),
        ("policy:inet:[::1]:25", None, "::1", "25"),
        ("qmail-verify:127.0.0.1:11113", None, "127.0.0.1", "11113"),
        ("deliverable:localhost:8998", None, "localhost", "8998"),
        ("http:0.0.0.0:80", None, "0.0.0.0", "80"),
        ("http:unix:/run/h", b"/run/h", "", ""),
    ],
)
def test_a_name_says_protocol_and_address(name: str, path: bytes | None, host: str, port: str) -> None:
    found = parse(name)
    assert found == Listener(name, name.partition(":")[0], path, host, port)
    assert found.kind == (socket.SOCK_DGRAM if found.protocol == "qmail-verify" else socket.SOCK_STREAM)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "socketmap",
        "socketmap:",
        "socketmap:unix:",
        "socketmap:unix:relative",
        "socketmap:127.0.0.1:25",
        "socketmap:inet:127.0.0.1",
        "socketmap:unix:/" + "x" * 107,
        "socketmap:unix:/a\0b",
        "deliverable:unix:/run/x",
        "qmail-verify:unix:/run/x",
        "qmail-verify:inet:127.0.0.1:1",
        "http:127.0.0.1:0",
        "http:127.0.0.1:65536",
        "http:::1:80",
        "tcp:127.0.0.1:80",
    ],
)
def test_any_other_name_is_wrong_and_said_to_be(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected|belongs in brackets"):
        parse(name)
