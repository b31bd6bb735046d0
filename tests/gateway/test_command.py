"""cvm-gateway: what is wrong with its arguments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CVM_GATEWAY = Path(sys.executable).with_name("cvm-gateway")


def called(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([CVM_GATEWAY, *arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected at least one LISTENER"),
        (["--routes"], "--routes: expected a FILE"),
        (["socketmap:unix:/x", "--routes"], "--routes: expected a FILE"),
        (["--nothing", "socketmap:unix:/x"], "--nothing: no such option, or not together with others"),
        (["socketmap:unix:/x", "--help"], "--help: no such option, or not together with others"),
        (["nothing:unix:/x"], "nothing:unix:/x: found the protocol 'nothing', expected one of"),
        (["socketmap:unix:x"], "socketmap:unix:x: expected an absolute path"),
        (["socketmap:unix:/x", "socketmap:unix:/x"], "the same listener is named twice"),
    ],
)
def test_wrong_usage_is_said_with_the_usage_below(arguments: list[str], said: str) -> None:
    done = called(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    first, *usage = done.stderr.splitlines()
    assert first.startswith(f"cvm-gateway: wrong usage: {said}")
    assert usage == called("--help").stdout.splitlines()


def test_options_may_stand_behind_the_listeners(tmp_path: Path) -> None:
    done = called(f"socketmap:unix:{tmp_path}/x", "--routes", f"{tmp_path}/routes", "--takeover")
    assert (done.returncode, done.stdout) == (100, "")
    assert done.stderr == f"cvm-gateway: {tmp_path}/routes: No such file or directory\n"


@pytest.mark.parametrize("name", ["CVM_GATEWAY_TOKEN", "CVM_GATEWAY_HTTPS_TOKEN"])
@pytest.mark.parametrize("token", ["blank ", "of-a-file\n", "two\nlines", "caf\xe9"])
def test_a_token_that_no_header_can_have_is_said_at_start_and_not_shown(name: str, token: str) -> None:
    done = called("socketmap:unix:/x", CVM_GATEWAY_MODULE="cvm-local:/x", **{name: token})
    assert (done.returncode, done.stdout) == (100, "")
    assert done.stderr == (
        f"cvm-gateway: {name}: found '(not shown)', expected printable ASCII characters,"
        " without a blank or a newline at either end\n"
    )
