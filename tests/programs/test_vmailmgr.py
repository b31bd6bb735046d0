"""vdeliver: virtual users, the default user, expiry, disabled mailboxes, settings, scripts; and records."""

from __future__ import annotations

import pytest
from disk import Disk
from hosts import cdb_bytes
from phosts import HOME, OWNER, delivery, looking

from cvm_qmail.plugin import Ran, Unavailable
from cvm_qmail.programs.vmailmgr import Vdeliver
from cvm_qmail.programs.vmailmgr_config import Policy
from cvm_qmail.programs.vmailmgr_record import NEVER, Entry, parse


def record(
    directory: bytes = b"./users/joe", *forwards: bytes, flags: bytes = b"\x08\1\x0a\1", expiry: bytes = b"-"
) -> bytes:
    """One of version 2."""
    all_forwards = b"".join(forward + b"\0" for forward in forwards)
    numbers = b"-\0-\0-\0-\x00900000000\0" + expiry + b"\0"
    return b"\2" + flags + b"\0*\0" + directory + b"\0" + all_forwards + b"\0A Person\0" + numbers


def disk(records: dict[bytes, bytes], table: bytes = b"passwd.cdb") -> Disk:
    """joe's home with a table, and a maildir."""
    made = Disk()
    made.directory(b"/home", HOME, mode=0o755, uid=OWNER.uid)
    made.maildir(HOME + b"/users/joe", OWNER.uid)
    made.file(HOME + b"/" + table, cdb_bytes(list(records.items())), uid=OWNER.uid)
    return made


def vdeliver(made: Disk, name: str, *options: bytes, **policy: str) -> Ran:
    return Vdeliver(Policy(b"/no-vmailmgr-here", **policy))(options, delivery(name), looking(made))


def word(made: Disk, name: str, *options: bytes, **policy: str) -> str:
    """The reason, with the status."""
    try:
        ran = vdeliver(made, name, *options, **policy)
    except Unavailable as error:
        return f"111 {error.reason}"
    return f"{ran.status} {ran.reason}"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (record(), "0 vdeliver"),
        (record(expiry=b"4000000000"), "0 vdeliver"),
        (record(expiry=b"1000000000"), "100 virtual-user-expired"),
        (record(expiry=b"0"), "100 virtual-user-expired"),
        (record(expiry=b"4294967295"), "0 vdeliver"),
        (record(expiry=b"4294967296"), "100 virtual-user-expired"),  # 0 again
        (record(b"", b"x@far.example"), "0 vdeliver"),
        (record(flags=b"\x08\0"), "0 vdeliver-discards"),
        (record(flags=b"\x0a\0"), "0 vdeliver-discards"),
        (record(b""), "0 vdeliver-discards"),
        (record(b"./users/joe", b"x@far.example", flags=b"\x08\0"), "0 vdeliver"),
        (record(b"./users/nobody"), "111 no-maildir"),
        (b":*:./users/joe", "0 vdeliver"),
        (b":*:&x@far.example,y", "0 vdeliver"),
        (b":*:", "0 vdeliver-discards"),
        (b":*", "111 virtual-user-damaged"),
        (b"\3" + record()[1:], "111 virtual-user-damaged"),
        (record(flags=b"c\1"), "111 virtual-user-damaged"),
        (record()[:-1], "111 virtual-user-damaged"),
        (record() + b"x\0", "111 virtual-user-damaged"),
        (record(expiry=b"abc"), "111 virtual-user-damaged"),
        (b"", "111 virtual-user-damaged"),
    ],
)
def test_what_becomes_of_mail_to_a_virtual_user(data: bytes, expected: str) -> None:
    assert word(disk({b"ann": data}), "ANN") == expected


def test_the_default_user_takes_what_nobody_else_does() -> None:
    made = disk({b"ann": record(expiry=b"1"), b"bad": b"\7", b"+": record()})
    assert word(made, "nobody") == "0 vdeliver"
    assert word(made, "") == "0 vdeliver"
    assert word(made, "bad") == "0 vdeliver"
    assert word(made, "ann") == "100 virtual-user-expired"


def test_without_one_a_name_that_is_not_there_bounces() -> None:
    assert word(disk({b"ann": record()}), "nobody") == "100 no-virtual-user"
    assert word(disk({b"bad": b"\7", b"+": record(expiry=b"1")}), "bad") == "111 virtual-user-damaged"


def test_a_user_that_is_thrown_away_may_be_rejected() -> None:
    assert word(disk({b"ann": record(b"")}), "ann", locked="reject") == "100 virtual-user-locked"


def test_the_owner_names_table_and_default_user() -> None:
    made = disk({b"ann": record(), b"catch": record(), b"+": record(expiry=b"1")}, b"mail/users.cdb")
    made.file(HOME + b"/.vmailmgr/password-file", b" mail/users \n", uid=OWNER.uid)
    made.file(HOME + b"/.vmailmgr/default-username", b"Catch\nnot this\n", uid=OWNER.uid)
    assert word(made, "nobody") == "0 vdeliver"
    assert vdeliver(made, "ann").where == HOME + b"/mail/users.cdb"


def test_a_blank_setting_is_none() -> None:
    made = disk({b"ann": record()})
    made.file(HOME + b"/.vmailmgr/password-file", b"\nother\n", uid=OWNER.uid)
    assert word(made, "ann") == "0 vdeliver"


@pytest.mark.parametrize("name", ["vdeliver-predeliver", "vdeliver-postdeliver"])
def test_a_script_of_the_owner_decides_by_itself(name: str) -> None:
    made = disk({b"ann": record(b"./users/nobody" if "pre" in name else b"./users/joe")})
    made.file(f"{HOME.decode()}/.vmailmgr/{name}".encode(), b"exit 100", mode=0o755, uid=OWNER.uid)
    assert vdeliver(made, "ann").status is None
    assert vdeliver(made, "nobody").status == 100
    off = b"--no-" + name.removeprefix("vdeliver-").encode()
    assert word(made, "ann", off) == ("111 no-maildir" if "pre" in name else "0 vdeliver")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((b"-DdFfRr", b"--quiet"), "0 vdeliver"),
        ((b"-x",), "1 "),
        ((b"--no-such",), "1 "),
        ((b"extra",), "1 "),
        ((b"--help",), "0 "),
        ((b"-h",), "0 "),
    ],
)
def test_wrong_usage_makes_mail_wait(options: tuple[bytes, ...], expected: str) -> None:
    assert word(disk({b"ann": record()}), "ann", *options) == expected


def test_where_it_forwards_to_is_known_if_it_does_nothing_else() -> None:
    made = disk(
        {
            b"alias": record(b"", b"x@far.example", b"local"),
            b"both": record(b"./users/joe", b"x@far.example"),
            b"me": record(b"", b"x@"),
        }
    )
    assert vdeliver(made, "alias").forwards == (b"x@far.example", b"local@example.org")
    assert vdeliver(made, "both").forwards is None
    assert vdeliver(made, "me").forwards is None


def test_a_missing_or_damaged_table_is_a_temporary_failure() -> None:
    made = disk({b"ann": record()}, b"other.cdb")
    assert word(made, "ann") == "111 no-table"
    made.file(HOME + b"/passwd.cdb", b"x" * 1000, uid=OWNER.uid)
    assert word(made, "ann") == "111 cdb-damaged"


# -- records --------------------------------------------------------------------------------------------


def test_a_record_has_no_password_in_its_repr() -> None:
    entry = parse(record().replace(b"*", b"$1$secret$hash"))
    assert entry == Entry(b"$1$secret$hash", b"./users/joe", (), True, True, NEVER)
    assert "secret" not in repr(entry)


def test_a_record_of_version_1_has_no_flags() -> None:
    entry = parse(b"\1" + record(b"./d", b"x@y", b"z", expiry=b"17").partition(b"\0")[2])
    assert entry == Entry(b"*", b"./d", (b"x@y", b"z"), True, True, 17)
