"""cvmctl ask: what cvm-testclient prints, and its exit status."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from calling import called
from hosts import Host
from serving import CVM_QMAIL, Server, environment, serving

from cvm_qmail.cvmctl.ask import split

CVMCTL = Path(sys.executable).with_name("cvmctl")


def cvmctl(*arguments: str, **more: str | None) -> subprocess.CompletedProcess[str]:
    return called(*arguments, env=environment(None, more))


@pytest.mark.root
@pytest.mark.peer("cvm-testclient")
def test_prints_what_cvm_testclient_prints_and_exits_likewise(server: Server) -> None:
    accounts = ("joe", "JOE-foo", "ann-x", "nobody", "joe-nothing")
    for account, domain in product(accounts, ("example.org", "V.example", "elsewhere.example", "")):
        theirs = subprocess.run(
            ["cvm-testclient", server.module, account, domain], capture_output=True, text=True, check=False, timeout=30
        )
        ours = cvmctl("ask", server.module, account, domain)
        assert (ours.stdout, ours.returncode) == (theirs.stdout, theirs.returncode), (account, domain)
        assert ours.stderr == theirs.stderr.replace("cvm-testclient", "cvmctl")


@pytest.mark.root
def test_an_address_in_one_word_is_split_at_its_last_at_sign(server: Server) -> None:
    assert cvmctl("ask", server.module, "joe-foo@example.org").stdout.startswith("user name:        joe\n")


@pytest.mark.parametrize(
    ("account", "domain", "characters", "sent"),
    [
        ("joe", "", "@", (b"joe", None)),
        ("joe@a@b", "", "@", (b"joe@a", b"b")),
        ("joe@a", "b", "@", (b"joe@a", b"b")),
        ("joe%a", "", "@%", (b"joe", b"a")),
        ("joe@a", "", "", (b"joe@a", None)),
        ("@a", "", "@", (b"", b"a")),
    ],
)
def test_account_and_domain_are_split_as_the_c_client_splits_them(
    account: str, domain: str, characters: str, sent: tuple[bytes, bytes | None]
) -> None:
    assert split(account, domain, characters) == sent


@pytest.mark.root
def test_the_secret_comes_from_the_environment(host: Host, server: Server) -> None:
    with serving(host, CVM_LOOKUP_SECRET="s3cret") as secretive:
        assert cvmctl("ask", secretive.module, "joe@example.org", CVM_LOOKUP_SECRET="s3cret").returncode == 0
        wrong = cvmctl("ask", secretive.module, "joe@example.org", CVM_LOOKUP_SECRET="wrong")
        none = cvmctl("ask", secretive.module, "joe@example.org", CVM_LOOKUP_SECRET=None)
    assert wrong.returncode == none.returncode == 7
    assert "CVM_LOOKUP_SECRET is not the module's secret" in wrong.stderr
    assert "set CVM_LOOKUP_SECRET to the module's secret" in none.stderr
    assert "wrong" not in wrong.stderr


@pytest.mark.root
def test_version_1_and_a_command_are_asked_alike(host: Host) -> None:
    asked = subprocess.run(
        [CVMCTL, "ask", "--v1", f"cvm-command:{CVM_QMAIL}", "joe@example.org"],
        env=environment(host, {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (asked.returncode, asked.stdout.splitlines()[0]) == (0, "user name:        joe")


def test_no_server_is_a_temporary_failure_not_a_refusal(tmp_path: Path) -> None:
    asked = cvmctl("ask", f"cvm-local:{tmp_path}/nothing", "joe@example.org")
    assert asked.returncode == 4
    assert "No such file or directory" in asked.stderr


def test_wrong_usage_is_reported_without_a_traceback() -> None:
    for arguments in (["ask"], ["ask", "cvm-udp:nowhere", "joe@example.org"], ["ask", "cvm-local:/x", "j" * 300]):
        asked = cvmctl(*arguments)
        assert asked.returncode == 2
        assert "Traceback" not in asked.stderr


def test_without_click_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise ImportError\n")
    asked = cvmctl("ask", "x", "y", PYTHONPATH=str(tmp_path))
    assert asked.returncode == 111
    assert "pip install 'cvm-qmail[tool]'" in asked.stderr
