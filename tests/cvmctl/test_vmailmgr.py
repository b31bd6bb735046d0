"""What cvmctl says of vmailmgr."""

from __future__ import annotations

import pytest
from hosts import Host, cdb_bytes, temporary_directory
from planting import found, make_sound
from programs.test_vmailmgr import record
from surveying import surveyed

from cvm_qmail.answer import Recipient
from cvm_qmail.cvmctl.trace.capture import look_up
from cvm_qmail.cvmctl.trace.narrate import stages
from cvm_qmail.qmail import qmail
from cvm_qmail.settings import Settings

pytestmark = pytest.mark.root

USERS = {
    b"bob": record(b"./Maildir"),
    b"alias": record(b"", b"x@far.example"),
    b"off": record(b"", flags=b"\x08\0").replace(b"*", b"$1$secret$hash"),
    b"bad": b"\7",
    b"Upper": record(),
}


def with_users(host: Host, users: dict[bytes, bytes]) -> Host:
    """v.example is joe's, with these virtual users."""
    host.file("home/joe/.qmail-default", "|vdeliver\n", uid=5001, gid=5001)
    host.file("home/joe/passwd.cdb", cdb_bytes(list(users.items())), mode=0o600, uid=5001, gid=5001)
    for part in ("", "/tmp", "/new", "/cur"):
        host.directory(f"home/joe/Maildir{part}", mode=0o700, uid=5001, gid=5001)
    return host


def explained(host: Host, account: bytes) -> str:
    settings = Settings.from_environment(host.environment)
    case = look_up(Recipient(account, b"v.example"), settings, qmail)
    return "\n".join(step.text for stage in stages(case) for step in stage.steps)


@pytest.mark.parametrize(
    ("account", "said"),
    [
        (b"bob", "vmailmgr user bob: to ./Maildir"),
        (b"alias", "vmailmgr user alias: forwarded to x@far.example"),
        (b"off", "vmailmgr user off: no mailbox that takes mail, no forwards"),
        (b"bad", "vmailmgr user bad: a record that vmailmgr cannot read"),
        (b"nobody", "vmailmgr user nobody: neither this one nor a default user"),
    ],
)
def test_a_trace_says_which_virtual_user_it_is(host: Host, account: bytes, said: str) -> None:
    text = explained(with_users(host, USERS), account)
    assert said in text
    assert "secret" not in text


def test_virtual_users_are_listed(host: Host) -> None:
    with_users(host, {name: data for name, data in USERS.items() if name != b"bad"})
    found = surveyed(Settings.from_environment(host.environment))
    assert {entry.local for entry in found.entries if entry.domain == b"v.example"} >= {b"bob", b"alias", b"off"}
    assert not found.unlisted.count
    assert not found.failures.count


def test_a_default_user_is_a_pattern(host: Host) -> None:
    found = surveyed(Settings.from_environment(with_users(host, {b"+": record(b"./Maildir")}).environment))
    assert (b"", True) in {(entry.local, entry.pattern) for entry in found.entries if entry.domain == b"v.example"}


# -- lint -----------------------------------------------------------------------------------------------


def mistakes(**files: bytes | None) -> set[str]:
    """The kinds that are found on a host whose files are changed; None: removed."""
    with temporary_directory() as root:
        host = with_users(make_sound(root), {b"bob": record(b"./Maildir")})
        host.file("bin/vdeliver", mode=0o755)
        for name, data in files.items():
            path = f"home/joe/{name.replace('_', '.')}"
            if data is None:
                (host.root / path).unlink()
            else:
                host.file(path, data, mode=0o600, uid=0 if data == b"closed" else 5001, gid=5001)
        return {finding.kind for finding in found(host)}


def test_a_sound_table_is_no_mistake() -> None:
    assert mistakes() == set()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (None, "table-missing"),
        (b"x" * 100, "table-damaged"),
        (cdb_bytes([(b"bob", b"\7")]), "virtual-user-damaged"),
        (b"closed", "table-unreadable"),
    ],
)
def test_a_table_that_vdeliver_cannot_read_is_found(data: bytes | None, kind: str) -> None:
    assert kind in mistakes(passwd_cdb=data)
