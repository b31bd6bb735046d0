"""Unix sockets: path, owner and mode, and taking over."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from hosts import Host, temporary_directory
from serving import CVM_QMAIL, Server, request, run, serving, until

from cvm_qmail.transports import unix_socket

pytestmark = pytest.mark.root

C_SERVER = Path("/usr/bin/cvm-qmail")


# -- the path -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "mode", "uid", "gid"),
    [
        ({}, 0o777, 0, 0),
        ({"CVM_SOCKET_MODE": "0600"}, 0o600, 0, 0),
        ({"CVM_SOCKET_MODE": "660", "CVM_SOCKET_OWNER": "5001", "CVM_SOCKET_GROUP": "5002"}, 0o660, 5001, 5002),
        ({"CVM_SOCKET_OWNER": "daemon"}, 0o777, 1, 1),
        ({"CVM_SOCKET_OWNER": "1"}, 0o777, 1, 0),
        ({"CVM_SOCKET_OWNER": "daemon", "CVM_SOCKET_GROUP": "bin"}, 0o777, 1, 2),
        ({"CVM_SOCKET_GROUP": "5002"}, 0o777, 0, 5002),
    ],
)
def test_mode_owner_and_group_are_those_of_the_settings(
    host: Host, settings: dict[str, str], mode: int, uid: int, gid: int
) -> None:
    with serving(host, **settings) as server:
        st = server.path.lstat()
        assert stat.S_ISSOCK(st.st_mode)
        assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid) == (mode, uid, gid)


def test_the_socket_never_has_its_name_before_its_mode_and_owner(host: Host) -> None:
    with temporary_directory() as directory:
        seen = set()
        with serving(host, path=directory / "s", wait=False, CVM_SOCKET_MODE="0640", CVM_SOCKET_OWNER="5001") as server:

            def listening() -> bool:
                try:
                    st = server.path.lstat()
                except FileNotFoundError:
                    return False
                seen.add((stat.S_IMODE(st.st_mode), st.st_uid))
                return "Starting." in server.log.read_text()

            until(listening)
            assert seen == {(0o640, 5001)}
            assert sorted(os.listdir(directory)) == ["s", "s.stats"]


def test_a_relative_path_is_served_and_removed(host: Host) -> None:
    with temporary_directory() as directory:
        with serving(host, path=Path(os.path.relpath(directory)) / "s") as server:
            assert (directory / "s").is_socket()
            assert server.ask("joe").code == 0
        assert not (directory / "s").exists()


def test_a_path_too_long_for_a_socket_is_refused(host: Host) -> None:
    path = "/tmp/" + "x" * (unix_socket.PATH_LIMIT - 4)
    done = run(f"cvm-local:{path}", host=host)
    assert done.returncode == 100
    assert b"108 bytes, expected at most 107" in done.stderr


def test_the_longest_path_is_served(host: Host) -> None:
    with temporary_directory() as directory:
        path = directory / ("x" * (unix_socket.PATH_LIMIT - len(str(directory)) - 1))
        assert len(str(path)) == unix_socket.PATH_LIMIT
        with serving(host, path=path) as server:
            assert server.ask("joe").code == 0
        assert not path.exists()


def test_what_a_dead_server_left_is_replaced(host: Host) -> None:
    with temporary_directory() as directory:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(directory / "s"))
        with serving(host, path=directory / "s") as server:
            assert server.ask("joe").code == 0


@pytest.mark.parametrize("option", [[], ["--takeover"]])
def test_what_is_not_a_socket_is_never_replaced(host: Host, option: list[str]) -> None:
    with temporary_directory() as directory:
        (directory / "s").write_text("precious")
        done = run(*option, f"cvm-local:{directory}/s", host=host)
        assert done.returncode == 111
        assert f"{directory}/s exists and is not a socket".encode() in done.stderr
        assert (directory / "s").read_text() == "precious"


@pytest.mark.parametrize("option", [[], ["--takeover"]])
def test_a_dangling_link_is_not_replaced_by_accident(host: Host, option: list[str]) -> None:
    with temporary_directory() as directory:
        (directory / "s").symlink_to("nowhere")
        done = run(*option, f"cvm-local:{directory}/s", host=host)
        assert done.returncode == 111
        assert (directory / "s").is_symlink()


def test_a_live_servers_path_is_refused_and_its_process_named(server: Server, host: Host) -> None:
    done = run(server.module, host=host)
    assert done.returncode == 111
    assert f"{server.path} is already served by process {server.process.pid}".encode() in done.stderr
    assert b"--takeover" in done.stderr
    assert server.ask("joe").code == 0


def test_a_live_server_whose_clients_are_silent_is_recognised(patient: Server, host: Host) -> None:
    silent = [patient.connect() for _ in range(20)]
    assert run(patient.module, host=host).returncode == 111
    for connection in silent:
        connection.close()


@pytest.mark.peer("/usr/bin/cvm-qmail")
def test_the_c_server_is_recognised_and_survives(host: Host) -> None:
    with serving(host, program=C_SERVER) as server:
        done = run(server.module, host=host)
        assert done.returncode == 111
        assert f"is already served by process {server.process.pid}".encode() in done.stderr
        assert server.process.poll() is None
        assert server.send(request("nobody", "elsewhere.example"))[:1] == b"\x64"


def test_a_directory_that_is_not_there_is_named(host: Host) -> None:
    done = run("cvm-local:/tmp/not-there/s", host=host)
    assert done.returncode == 111
    assert b"/tmp/not-there" in done.stderr
    assert b"No such file or directory" in done.stderr


def test_a_directory_that_may_not_be_written_is_named(host: Host) -> None:
    with temporary_directory() as directory:  # mode 0755, of root
        done = run(
            Path("/usr/bin/setpriv"),
            "--reuid=5001",
            "--regid=5001",
            "--clear-groups",
            CVM_QMAIL,
            f"cvm-local:{directory}/s",
            host=host,
        )
        assert done.returncode == 111
        assert f"{directory}/s".encode() in done.stderr
        assert b"Permission denied" in done.stderr
