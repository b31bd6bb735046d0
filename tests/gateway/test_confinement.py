"""What a gateway that was taken over cannot do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from gateways import gateway, module
from hosts import temporary_directory
from plugins.attempting import ATTEMPTS
from serving import until

from cvm_qmail.gateway import confinement
from cvm_qmail.gateway.settings import Settings
from cvm_qmail.process import landlock, sandbox

pytestmark = pytest.mark.skipif(not landlock.version(), reason="PEER MISSING: a kernel with Landlock")

ITS_MODULE = {"connect-unix"}
"""What it needs for its module."""


def outcome(name: str, argument: bytes) -> str:
    """What comes of an attempt in a process in the gateway's sandbox."""
    settings = Settings.from_environment({"CVM_GATEWAY_MODULE": "cvm-local:/run/s", "CVM_SANDBOX": "required"})
    ready, result = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            confinement.enter(settings, [], None)
            ATTEMPTS[name](argument)
            os.write(result, b"done")
        except OSError as error:
            os.write(result, b"refused %d" % (error.errno or 0))
        finally:
            os._exit(0)
    os.close(result)
    os.waitpid(pid, 0)
    with open(ready, "rb") as said:
        return said.read().decode()


@pytest.mark.parametrize("name", sorted(set(ATTEMPTS) - ITS_MODULE))
def test_nothing_that_harms_succeeds(name: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"text")
    argument = b"1" if name == "connect" else os.fsencode(file)
    assert outcome(name, argument).startswith("refused ")
    assert file.read_bytes() == b"text"


def test_it_is_entered_before_the_first_client() -> None:
    with (
        temporary_directory() as directory,
        module(f"cvm-local:{directory}/m") as asked,
        gateway(asked.address, CVM_SANDBOX="required") as running,
    ):
        status = until(Path(f"/proc/{running.process.pid}/status").read_text)
        assert "Seccomp:\t2" in status
        assert "NoNewPrivs:\t1" in status
        assert running.outcome()["outcome"] == "accepted"


def test_nothing_is_said_to_be_missing_where_all_of_it_is_there() -> None:
    with (
        temporary_directory() as directory,
        module(f"cvm-local:{directory}/m") as asked,
        gateway(asked.address, CVM_SANDBOX="auto") as running,
    ):
        assert running.outcome()["outcome"] == "accepted"
        assert running.errors.read_text() == ""


def test_no_home_directory_can_be_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"text")
    settings = Settings.from_environment({"CVM_GATEWAY_MODULE": "cvm-local:/run/s", "CVM_SANDBOX": "required"})
    pid = os.fork()
    if not pid:
        try:
            confinement.enter(settings, [], None)
            secret.read_bytes()
        except PermissionError:
            os._exit(13)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 13


def test_outside_the_sandbox_there_is_no_report() -> None:
    assert sandbox.report()["process"] == ""
