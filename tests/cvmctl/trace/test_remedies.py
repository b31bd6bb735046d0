"""What is advised where an address is refused or cannot be determined."""

from __future__ import annotations

import os

import pytest
from hosts import Host

from cvm_qmail.cvmctl.trace import capture
from cvm_qmail.cvmctl.trace import remedies as advice
from cvm_qmail.cvmctl.ui.arguments import recipient_of
from cvm_qmail.plugin import Module
from cvm_qmail.qmail import qmail
from cvm_qmail.reasons import WORDS
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables

pytestmark = pytest.mark.root


def plain(tables: Tables, settings: Settings) -> Module:
    """cvm-qmail without plug-ins."""
    return qmail(tables, settings, [])


def remedies(host: Host, address: str, **more: str) -> str:
    settings = Settings.from_environment({**host.environment, **more})
    case = capture.look_up(recipient_of(os.fsencode(address)), settings, plain)
    return "\n".join(advice.remedies(case)).replace(str(host.root), "")


def test_a_stale_users_cdb_is_pointed_out(host: Host) -> None:
    host.users("+joe-:joe:5001:5001:{root}/home/joe:-::")
    os.utime(host.root / "users/cdb", (1, 1))
    host.file("users/assign", ".\n")
    assert "users/assign is newer than users/cdb: run qmail-newu" in remedies(host, "joe-nope@example.org")


def test_an_account_behind_a_catch_all_is_pointed_out(host: Host) -> None:
    host.users("+:alias:5090:5099:{root}/alias:-::")
    assert "there is an account joe, but +: in users/assign comes first" in remedies(host, "joe@example.org")


def test_accounts_that_are_skipped_are_pointed_out(host: Host) -> None:
    host.user("eve", 5003)
    host.passwd(
        "root:x:0:0::/root:/bin/sh", "eve:x:5004:5004::{root}/home/eve:/bin/sh", "gone:x:5005:5005::/nowhere:/bin/sh"
    )
    assert "the home /home/eve of account eve belongs to uid 5003, not to 5004" in remedies(host, "eve@example.org")
    assert "the home /nowhere of account gone is missing" in remedies(host, "gone@example.org")
    assert "account root has uid 0" in remedies(host, "root@example.org")


def test_an_account_before_another_break_character_is_pointed_out(host: Host) -> None:
    said = remedies(host, "joe+tag@example.org")
    assert 'account joe exists, but its extensions begin after "-"' in said
    assert "CVM_QMAIL_BREAK must be conf-break of the qmail build" in said
    assert "CVM_QMAIL_BREAK" not in remedies(host, "nobody+tag@example.org")
    assert "CVM_QMAIL_BREAK" not in remedies(host, "joe-tag@example.org")


def test_files_that_were_meant_but_do_not_count_are_pointed_out(host: Host) -> None:
    host.directory("home/joe/.qmail-directory", uid=5001)
    host.file("home/joe/.qmail-Capital", uid=5001)
    host.file("home/joe/.qmail-a.b", uid=5001)
    (host.root / "home/joe/.qmail-link").symlink_to("nowhere")
    assert "/home/joe/.qmail-directory is a directory" in remedies(host, "joe-directory@example.org")
    assert "/home/joe/.qmail-Capital can never be found: rename it to .qmail-capital" in remedies(
        host, "joe-Capital@example.org"
    )
    assert "/home/joe/.qmail-a.b can never be found: rename it to .qmail-a:b" in remedies(host, "joe-a.b@example.org")
    assert "/home/joe/.qmail-link is a dangling link" in remedies(host, "joe-link@example.org")


def test_lines_that_look_right_but_are_not_are_pointed_out(host: Host) -> None:
    host.control("locals", "example.org\ndos.example\r\n")
    host.control("virtualdomains", "nocolon.example\n")
    host.control("rcpthosts", "example.org\npassed.example\n")
    assert "/control/locals line 2 has a blank or a carriage return" in remedies(host, "joe@dos.example")
    assert "/control/virtualdomains line 1 lacks a colon" in remedies(host, "joe@nocolon.example")
    assert "/control/rcpthosts line 2 accepts mail for it all the same" in remedies(host, "joe@passed.example")


def test_modes_and_owners_are_pointed_out(host: Host) -> None:
    host.file("home/joe/.qmail-w", mode=0o646, uid=5001)
    host.file("home/joe/.qmail-r", mode=0o600)
    host.file("home/joe/.qmail-b", "\n", uid=5001)
    host.file("home/joe/.qmail-f", "&a@b\n./Maildir/\n", mode=0o744, uid=5001)
    assert remedies(host, "joe-w@example.org") == "chmod o-w /home/joe/.qmail-w"
    assert remedies(host, "joe-r@example.org") == (
        "let uid 5001 read /home/joe/.qmail-r (chown, or chmod a+r), and enter the directories above it"
    )
    assert remedies(host, "joe-b@example.org").startswith("/home/joe/.qmail-b line 1: begin with an instruction")
    assert remedies(host, "joe-f@example.org").startswith("/home/joe/.qmail-f: chmod u-x it")
    (host.root / "home/ann").chmod(0o000)
    assert remedies(host, "ann@example.org").startswith("chmod u+rwx /home/ann")
    host.users("=ghost:ghost:5007:5007:{root}/home/ghost:::")
    assert remedies(host, "ghost@example.org").startswith("make or mount /home/ghost for uid 5007")
    (host.root / "control/locals").unlink()
    host.directory("control/locals")
    assert "make /control/locals a regular file" in remedies(host, "joe@example.org")


def test_what_is_accepted_needs_no_advice(host: Host) -> None:
    assert remedies(host, "joe@example.org") == ""


def test_a_domain_that_is_not_ours_and_one_that_is_excepted(host: Host) -> None:
    assert remedies(host, "x@elsewhere.example").startswith("if elsewhere.example is delivered here: add it to")
    assert remedies(host, "x@not.w.example") == (
        "if it is delivered here: remove /control/virtualdomains line 3 and send qmail-send HUP"
    )


def test_a_home_with_odd_modes(host: Host) -> None:
    (host.root / "home/ann").chmod(0o757)
    (host.root / "home/joe").chmod(0o1755)
    assert remedies(host, "ann@example.org") == "chmod o-w /home/ann"
    assert remedies(host, "joe@example.org") == "chmod -t /home/joe"


def test_a_host_without_alias(host: Host) -> None:
    assert remedies(host, "nobody@example.org", CVM_QMAIL_ALIAS="nobody") == (
        "make the account nobody, or set CVM_QMAIL_ALIAS"
    )


def test_ids_and_homes_of_users_assign(host: Host) -> None:
    host.users("=root:root:0:0:/root:::", "=rel:rel:5001:5001:home/joe:::")
    assert remedies(host, "root@example.org") == "correct uid and gid of =root: in users/assign"
    assert remedies(host, "rel@example.org") == "let the home of =rel: in users/assign begin with a slash"


def test_a_damaged_users_cdb_is_made_anew(host: Host) -> None:
    host.users("=ann:ann:5002:5002:{root}/home/ann:::")
    path = host.root / "users/cdb"
    path.write_bytes(path.read_bytes()[:2100])
    assert remedies(host, "ann@example.org").startswith("run qmail-newu, which makes users/cdb again")


REASONS = frozenset(advice.REMEDIES)


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_advice_is_for_reasons_that_there_are(reason: str) -> None:
    assert reason in WORDS
