"""A host as people wrote it: line numbers, records, accounts, names."""

from __future__ import annotations

import pytest
from hosts import Host, assign_records, cdb_bytes

from cvm_qmail.answer import Unavailable
from cvm_qmail.cvmctl.host import files as written
from cvm_qmail.cvmctl.host.files import as_assign, cdb_records
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Rights, Tables


def tables(host: Host) -> tuple[Tables, Settings]:
    settings = Settings.from_environment(host.environment)
    return Tables(settings), settings


def test_entries_of_control_files_know_their_lines(host: Host) -> None:
    host.control("locals", "# ours\n\na.example \nb\0c\n")
    lines = written.control_lines(*tables(host), "locals")
    assert lines is not None
    assert [(line.number, line.value) for line in lines] == [(3, b"a.example"), (4, b"b"), (4, b"c")]
    assert written.control_lines(*tables(host), "percenthack") is None


def test_without_locals_me_is_local(host: Host) -> None:
    (host.root / "control/locals").unlink()
    assert [(line.file, line.value) for line in written.local_lines(*tables(host))] == [
        (f"{host.root}/control/me".encode(), b"mx.example.org")
    ]


def test_lines_of_users_assign_make_the_records_that_qmail_newu_makes(host: Host) -> None:
    lines = ["=Joe:joe:1:2:/h:::", "+Joe-:joe:1:2:/h:-::", "+:alias:3:4:/a:-:x:rest"]
    host.file("users/assign", "".join(f"{line}\n" for line in lines) + ".\nignored\n")
    found = written.assign(*tables(host))
    assert found is not None
    assert [(line.key, line.data) for line in found[0]] == assign_records(lines)[:-1]
    assert found[1]


def test_a_line_with_too_few_fields_or_no_end_is_reported(host: Host) -> None:
    host.file("users/assign", "=joe:joe:1\n")
    found = written.assign(*tables(host))
    assert found is not None
    assert [line.data for line in found[0]] == [None]
    assert not found[1]


def test_keys_are_spelled_as_in_users_assign() -> None:
    assert [as_assign(key) for key in (b"!joe\0", b"!joe-", b"!")] == [b"=joe", b"+joe-", b"+"]


def test_records_come_in_their_order() -> None:
    records = [(b"!b", b"1"), (b"", b"-"), (b"!a", b""), (b"!b", b"2")]
    assert list(cdb_records(cdb_bytes(records), b"x")) == records
    assert list(cdb_records(cdb_bytes([]), b"x")) == []


def test_a_database_that_is_not_whole_is_a_temporary_failure_wherever_it_is_cut() -> None:
    data = cdb_bytes([(b"!joe", b"x" * 20), (b"", b"-")])
    for end in range(len(data)):
        with pytest.raises(Unavailable, match="cdb-damaged"):
            list(cdb_records(data[:end], b"x"))


@pytest.mark.root
def test_names_below_directories_are_found_and_links_lead_nowhere_for_ever(host: Host) -> None:
    host.directory("home/joe/.qmail-d", uid=5001)
    host.file("home/joe/.qmail-d/e", uid=5001)
    (host.root / "home/joe/.qmail-d/loop").symlink_to(".")
    names = written.dotqmail_names(tables(host)[0], f"{host.root}/home/joe".encode(), Rights(5001, 5001))
    assert {b".qmail-foo", b".qmail-d", b".qmail-d/e", b".qmail-d/loop"} <= set(names)
    assert len(names) < 50


def test_accounts_are_those_of_the_password_file_the_first_of_a_name(host: Host) -> None:
    host.passwd("joe:x:1:2::/a:", "joe:x:3:4::/b:")
    assert written.accounts(*tables(host))[b"joe"] == (1, 2, b"/a")


def test_all_accounts_of_the_name_service_are_listed() -> None:
    assert written._all_accounts()[b"root"].uid == 0


def test_qtraceaddrs_variables_stand_in_for_ours() -> None:
    theirs = {"QMAIL": "/q", "QMAILBREAK": "+", "QMAILALIAS": "al"}
    made = written.settings(theirs)
    assert (made.qmail_root, made.breakchar, made.alias) == (b"/q", b"+", b"al")
    ours = {"QMAIL_ROOT": "/o", "CVM_QMAIL_BREAK": "=", "CVM_QMAIL_ALIAS": "us"}
    made = written.settings(theirs | ours)
    assert (made.qmail_root, made.breakchar, made.alias) == (b"/o", b"=", b"us")
