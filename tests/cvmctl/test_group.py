"""cvmctl and its subcommands: found by name, and no traceback whatever ends them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from cvm_qmail.answer import Unavailable
from cvm_qmail.cvmctl import group
from cvm_qmail.cvmctl.commands import commands
from cvm_qmail.cvmctl.group import cvmctl
from cvm_qmail.protocols.cvm.client import NoAnswer
from cvm_qmail.settings import BadSetting

CVMCTL = Path(sys.executable).with_name("cvmctl")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cvmctl, arguments)


@pytest.mark.parametrize("name", sorted(commands()))
def test_each_subcommand_explains_itself(name: str) -> None:
    said = run(name, "--help")
    assert said.exit_code == 0
    assert said.output.startswith(f"Usage: cvmctl {name} ")
    assert "exit status" in said.output or name == "completion"


def test_help_lists_all_of_them_with_what_they_are_for() -> None:
    listed = " ".join(run("--help").output.split())
    assert all(f"{name} {purpose}" in listed for name, (_, _, purpose) in commands().items())


def test_an_unknown_one_is_wrong_usage() -> None:
    said = run("trcae", "joe@example.org")
    assert said.exit_code == 2
    assert "No such command 'trcae'" in said.output


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (BadSetting("CVM_X", "y", "a number"), 100, "CVM_X"),
        (Unavailable("home", "gone\x1b", b"/h\n"), 111, "cvmctl: /h\\x0a: home: gone\\x1b\n"),
        (NoAnswer("it is silent"), 111, "cvmctl: it is silent\n"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x"), 111, "cvmctl: /x: No space left on device\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_ends_a_subcommand_is_a_message_and_a_status(
    raised: Exception, status: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def fails() -> None:
        raise raised

    monkeypatch.setattr(group.Group, "get_command", lambda *_: fails)
    said = run("fails")
    assert (said.exit_code, said.stdout) == (status, "")
    assert message in said.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("arguments", [["log", "--summary"], ["decode", "0200"], ["log", "-"], ["--help"]])
def test_closed_standard_descriptors_are_no_traceback(closed: str, arguments: list[str]) -> None:
    command = ["sh", "-c", f'exec "$0" "$@" {closed}', CVMCTL, *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["log", "--help"], ["decode", "0200"]])
@pytest.mark.parametrize("buffered", [True, False])
def test_a_full_disk_is_no_traceback(arguments: list[str], buffered: bool) -> None:
    env = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [CVMCTL, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=env
        )
    assert (done.returncode, done.stderr) == (111, "cvmctl: No space left on device\n")
