"""The command: usage, settings, what it says at start."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hosts import Host, temporary_directory
from serving import CVM_QMAIL, PATIENCE, environment, free_port, request, run, serving, until

from cvm_qmail import __version__, cli
from cvm_qmail.settings import SETTINGS

pytestmark = pytest.mark.root


# -- usage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["cvm-local"],
        ["cvm-local:"],
        ["cvm-udp:"],
        ["cvm-tcp:host:1"],
        ["/path"],
        ["--nonsense"],
        [""],
        ["cvm-local:/a", "cvm-local:/b"],
        ["--takeover"],
        ["--takeover", "cvm-udp:127.0.0.1:4"],
        ["--version", "--help"],
        ["cvm-udp:127.0.0.1"],
        ["cvm-udp:127.0.0.1:70000"],
        ["cvm-udp:::1:70"],
    ],
)
def test_wrong_usage_is_explained_with_exit_status_1(host: Host, arguments: list[str]) -> None:
    done = run(*arguments, host=host)
    assert done.returncode == 1
    assert done.stdout == b""
    assert b"cvm-qmail: " in done.stderr
    assert b"cvm-local:/path/to/socket" in done.stderr or b"only a Unix socket" in done.stderr


def test_help_and_version() -> None:
    helped = run("--help")
    assert helped.returncode == 0
    assert b"cvm-udp:hostname:port" in helped.stdout
    assert run("--version").stdout.decode() == f"cvm-qmail {__version__}\n"


# -- settings -----------------------------------------------------------------------------------------

MALFORMED = [
    ("QMAIL_ROOT", "var/qmail", "a path that starts with /"),
    ("CVM_SOCKET_MODE", "0999", "octal digits"),
    ("CVM_SOCKET_MODE", "10000", "octal digits"),
    ("CVM_SOCKET_MODE", "-1", "octal digits"),
    ("CVM_SOCKET_OWNER", "no-such-user", "the name of a user, or a uid"),
    ("CVM_SOCKET_OWNER", "-1", "the name of a user, or a uid"),
    ("CVM_SOCKET_OWNER", "99999999999", "the name of a user, or a uid"),
    ("CVM_SOCKET_GROUP", "no-such-group", "the name of a group, or a gid"),
    ("CVM_SOCKET_GROUP", "4294967295", "the name of a group, or a gid"),
    ("CVM_LOCAL_TIMEOUT", "1s", "a whole number"),
    ("CVM_LOCAL_TIMEOUT", "-5", "a whole number"),
    ("CVM_LOCAL_TIMEOUT", "3600001", "a whole number"),
    ("CVM_LOOKUP_TIMEOUT", "0", "a whole number from 1"),
    ("CVM_LOOKUP_TIMEOUT", "five", "a whole number"),
    ("CVM_LOOKUP_TIMEOUT", "٣", "a whole number"),
    ("CVM_WORKERS", "0", "a whole number"),
    ("CVM_WORKERS", "2000", "a whole number"),
    ("CVM_WORKERS", "1.5", "a whole number"),
    ("CVM_LOG", "xml", "text, json"),
    ("CVM_QMAIL_BREAK", "--", "one byte"),
    ("CVM_QMAIL_ALIAS", "a:b", "the name of an account"),
    ("CVM_QMAIL_ALIAS", "a/b", "the name of an account"),
    ("CVM_QMAIL_MASK", "abc", "octal digits"),
    ("CVM_QMAIL_PROGRAMS", "no-such-plug-in", "installed plug-ins"),
    ("CVM_SHADOW", "cvm-local:", "cvm-local:PATH, cvm-udp:HOST:PORT or cvm-command:PROGRAM"),
    ("CVM_SHADOW", "cvm-udp:nowhere", "cvm-udp:HOST:PORT"),
    ("CVM_DRY_RUN", "yes", "one of 0, 1"),
    ("CVM_QMAIL_BRANCH", "yes", "one of 0, 1"),
    ("CVM_QMAIL_FOLLOW", "yes", "one of 0, 1"),
    ("CVM_SANDBOX", "on", "one of auto, required, off"),
]


@pytest.mark.parametrize(("name", "value", "expected"), MALFORMED)
def test_a_malformed_setting_is_named_with_what_was_found_and_expected(
    host: Host, name: str, value: str, expected: str
) -> None:
    with temporary_directory() as directory:
        done = run(f"cvm-local:{directory}/s", host=host, **{name: value})
        assert done.returncode == 100
        assert name in done.stderr.decode()
        assert repr(value) in done.stderr.decode()
        assert expected in done.stderr.decode()
        assert os.listdir(directory) == []


def test_a_malformed_setting_stops_the_other_ways_to_run_too(host: Host) -> None:
    assert run(host=host, data=request("joe"), CVM_QMAIL_MASK="x").returncode == 100
    assert run(f"cvm-udp:127.0.0.1:{free_port()}", host=host, CVM_QMAIL_MASK="x").returncode == 100


@pytest.mark.parametrize(
    "name", [v.name for v in SETTINGS.values() if v.name not in ("QMAIL_ROOT", "NSS_WRAPPER_PASSWD")]
)
def test_an_empty_setting_is_no_mistake(host: Host, name: str) -> None:
    with serving(host, **{name: ""}) as server:
        assert server.ask("joe").code == 0


def test_every_variable_that_can_be_malformed_is_tried() -> None:
    free = {"CVM_LOOKUP_SECRET", "CVM_QMAIL_ASSUME_LOCAL", "CVM_QMAIL_MISSINGDOMAIN", "CVM_QMAIL_MISSINGUSER"}
    free |= {"CVM_QMAIL_LOOKASIDE", "CVM_QMAIL_CHECK_PERMS", "CVM_STATS", "NSS_WRAPPER_PASSWD"}
    assert {name for name, _, _ in MALFORMED} | free >= {v.name for v in SETTINGS.values()}


# -- what an administrator hears at start -------------------------------------------------------------


def test_a_host_that_is_in_order_gets_no_warning(host: Host) -> None:
    with serving(host) as server:
        if os.geteuid() == 0:
            server.warned("running as root")  # the last
        lines = server.errors.read_text().splitlines()
        assert [line for line in lines if "running as root" not in line] == []


@pytest.mark.root
def test_root_hears_that_it_need_not_be(host: Host) -> None:
    with serving(host) as server:
        assert "CAP_SETUID, CAP_SETGID and CAP_DAC_READ_SEARCH is enough" in server.warned("running as root: ")


def test_an_unset_secret_is_warned_of(host: Host) -> None:
    with serving(host, CVM_LOOKUP_SECRET=None) as server:
        server.warned("warning: CVM_LOOKUP_SECRET is not set")
        assert server.ask("joe").code == 6
        assert server.ask("nobody").code == 100


def test_listening_beyond_this_host_without_a_secret_is_warned_of(host: Host) -> None:
    for secret, warned in ((None, True), ("", True), ("s", False)):
        with temporary_directory() as directory:
            errors = directory / "errors"
            with errors.open("wb") as err:
                process = subprocess.Popen(
                    [CVM_QMAIL, f"cvm-udp:0.0.0.0:{free_port()}"],
                    env=environment(host, {"CVM_LOOKUP_SECRET": secret}),
                    stdout=subprocess.PIPE,
                    stderr=err,
                )
            assert process.stdout is not None
            with process, process.stdout:
                assert process.stdout.readline() == b"Starting.\n"
                process.terminate()
                assert process.wait(PATIENCE) == 0
            assert ("reachable from other hosts, without a secret" in errors.read_text()) == warned


def test_a_missing_control_directory_is_said_and_the_server_recovers(host: Host) -> None:
    (host.root / "control").rename(host.root / "elsewhere")
    with serving(host) as server:
        assert f"{host.root} has no directory control" in server.warned("warning: QMAIL_ROOT")
        assert server.ask("joe").code == 4
        (host.root / "elsewhere").rename(host.root / "control")
        assert server.ask("joe").code == 0


def test_an_empty_qmail_root_is_said_and_answered_4(host: Host) -> None:
    with temporary_directory() as empty, serving(host, QMAIL_ROOT=str(empty)) as server:
        server.warned("has no directory control: every address is a temporary failure")
        assert server.ask("joe").code == 4


def test_missing_control_files_are_said_and_the_server_recovers(host: Host) -> None:
    for name in ("me", "locals"):
        (host.root / "control" / name).unlink()
    with serving(host) as server:
        server.warned("neither control/me nor control/locals is there")
        assert server.ask("joe").code == 4
        host.control("me", "example.org\n")
        assert server.ask("joe").code == 0


def test_a_host_without_qmailp_is_judged_with_its_own_rights_and_says_so(host: Host) -> None:
    (host.root / "passwd").write_text(f"joe:x:5001:5001::{host.root}/home/joe:/bin/sh\n")
    with serving(host) as server:
        server.warned("there is no account qmailp")
        server.warned("there is no account qmails")
        assert server.ask("joe").code == 0


def test_a_missing_password_file_is_said(host: Host) -> None:
    (host.root / "passwd").unlink()
    with serving(host) as server:
        server.warned("no local address can be judged")
        assert server.ask("joe").code == 4


def test_a_closed_standard_output_stops_nobody(host: Host) -> None:
    with temporary_directory() as directory:
        script = 'exec "$0" "$@" >&-'
        process = subprocess.Popen(
            ["/bin/sh", "-c", script, CVM_QMAIL, f"cvm-local:{directory}/s"],
            env=environment(host, {}),
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        with process, process.stderr:
            until(lambda: process.poll() is not None or (directory / "s").exists(), "the server starts")
            try:
                assert process.poll() is None, process.stderr.read()
                from cvm_qmail.protocols.cvm import client

                assert client.ask(f"cvm-local:{directory}/s", b"joe", b"example.org").code == 0
            finally:
                process.terminate()
            assert process.wait(PATIENCE) == 0


IN_COMMAND_MODE = """
import os, sys, typing
from cvm_qmail import cli

def made_from_text(self, text, *_, **__):
    sys.exit(f"the annotation {text!r} is text: no 'from __future__ import annotations' where this class is")

typing.ForwardRef.__init__ = made_from_text
end = os._exit

def said(status):
    print(status, *sys.modules, file=sys.stderr, flush=True)
    end(status)

os._exit = said
sys.argv = ["cvm-qmail"]
cli.main()
"""
"""Prints on standard error, for the child that answers and for its parent, the exit status and what was loaded."""


@pytest.mark.parametrize(("account", "status"), [("joe", "0"), ("nobody", "100")])
def test_command_mode_costs_no_more_than_it_needs(host: Host, account: str, status: str) -> None:
    """Start-up counts there: no server, no cache, no log, no plug-in; and no annotation compiled from its text.

    `typing.NamedTuple` compiles each annotation that is text, which took a seventh of the time.
    """
    done = subprocess.run(
        [sys.executable, "-c", IN_COMMAND_MODE],
        input=request(account),
        capture_output=True,
        check=False,
        env=environment(host, {"CVM_LOOKUP_SECRET": ""}),
    )
    child, parent = (line.split() for line in done.stderr.decode().splitlines())
    assert (child[0], parent[0], done.stdout[:1]) == ("0", status, bytes([int(status)])), done.stderr
    assert not {
        "cvm_qmail.server.supervisor",
        "cvm_qmail.process.policies",
        "cvm_qmail.service.answer_cache",
        "cvm_qmail.observe.log",
        "cvm_qmail.programs.vmailmgr_config",
        "cvm_vpopmail.settings",
        "json",
        "subprocess",
        "logging",
        "asyncio",
        "pathlib",
        "signal",
        "fcntl",
        "secrets",
        "hmac",
    } & {*child, *parent}


def test_usage_names_every_scheme() -> None:
    for scheme in cli._SCHEMES:
        assert scheme in cli.USAGE
