"""cvmctl check: many addresses, their verdicts as the server's, in every form."""

from __future__ import annotations

import csv
import gzip
import json
import os
import pty
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hosts import Host, as_bytes, load, materialise, systems, temporary_directory
from serving import AN_HOUR, PLUGINS, environment

from cvm_qmail.cvmctl.check.command import answers, service
from cvm_qmail.cvmctl.check.mailbox import in_list
from cvm_qmail.cvmctl.group import cvmctl
from cvm_qmail.cvmctl.host.pool import Pool
from cvm_qmail.cvmctl.host.verdicts import WORDS as MARKS
from cvm_qmail.qmail import qmail
from cvm_qmail.settings import Settings

CVMCTL = Path(sys.executable).with_name("cvmctl")

NAMES = {"deliver": "accepted", "no-mailbox": "rejected", "remote": "out of scope", "defer": "temporary failure"}


def check(host: Host | None, *arguments: str | Path, data: bytes = b"", **more: str | None) -> Result:
    """`cvmctl check` in this process; its children are those of a command."""
    arguments = ("check", *map(str, arguments))
    return CliRunner().invoke(cvmctl, arguments, input=data, env={**(host.environment if host else {}), **more})


def run(host: Host, data: bytes, **more: str) -> subprocess.CompletedProcess[str]:
    """The command itself, with the plug-in that misbehaves."""
    return subprocess.run(
        [CVMCTL, "check", "--csv"],
        env=environment(host, {"PYTHONPATH": PLUGINS, **more}),
        input=data.decode(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.root
def test_a_table_by_verdict_and_reason_and_what_concerns_a_person(host: Host) -> None:
    done = check(
        host, data=b"joe@example.org\nnobody@example.org\nann-x@example.org\nx@elsewhere.example\nno@example.org\n"
    )
    assert done.stdout == (
        "verdict       reason            addresses\n"
        "rejected      no-mailbox                2\n"
        "accepted      dotqmail-default          1\n"
        "accepted      mailbox                   1\n"
        "out of scope  remote                    1\n"
        "all                                     5\n"
        "\n"
        "rejected:\n"
        f"  nobody@example.org  no-mailbox {host.root}/alias\n"
        f"  no@example.org  no-mailbox {host.root}/alias\n"
    )
    assert done.exit_code == 1


@pytest.mark.root
@pytest.mark.parametrize("path", systems("qmail"), ids=lambda path: path.stem)
def test_verdicts_are_those_of_the_corpus(path: Path) -> None:
    system = load(path)
    expected = {address: NAMES[case["expect"]] for case in system["cases"] if (address := listable(case))}
    with temporary_directory() as root:
        settings = Settings.from_environment(
            {**materialise(system, root).environment, "CVM_QMAIL_PROGRAMS": "vpopmail"}
        )
        with Pool(settings, service(qmail), 1) as pool:
            said = {answer.asked: MARKS[answer.mark] for answer in answers(in_list(expected), pool)}
    assert said == expected


def listable(case: Mapping[str, Any]) -> bytes | None:
    """An address of the corpus as a list can hold it."""
    address = as_bytes(case["local"]) + (b"" if case["domain"] is None else b"@" + as_bytes(case["domain"]))
    if case["domain"] is None and b"@" in address:
        return None  # an account with @ and no domain is another question
    (found,) = [*in_list([address])] or [None]
    return address if b"\n" not in address and found and found.address == address else None


@pytest.mark.root
@pytest.mark.parametrize(
    ("addresses", "status"),
    [
        (b"joe@example.org\nx@elsewhere.example\n", 0),
        (b"", 0),
        (b"joe@example.org\nnobody@example.org\n", 1),
        (b"nobody@example.org\nwide@example.org\n", 111),
    ],
)
def test_the_exit_status_says_the_worst(host: Host, addresses: bytes, status: int) -> None:
    host.user("wide", 5003, mode=0o777)
    host.passwd("joe:x:5001:5001::{root}/home/joe:", "wide:x:5003:5003::{root}/home/wide:")
    assert check(host, data=addresses).exit_code == status


@pytest.mark.root
def test_csv_and_json_have_a_line_for_each_address_and_odd_bytes_escaped(host: Host) -> None:
    addresses = b'joe@example.org\n\x1b[31m"a,b"\xe9@example.org\nnobody@example.org\n'
    head, *rows = csv.reader(check(host, "--csv", data=addresses).stdout.splitlines())
    objects = [json.loads(line) for line in check(host, "--json", data=addresses).stdout.splitlines()]
    assert [dict(zip(head, row, strict=True)) for row in rows] == [
        {name: value or "" for name, value in one.items()} for one in objects
    ]
    assert [row[:3] for row in rows] == [
        ["joe@example.org", "accepted", "mailbox"],
        [r'\x1b[31m"a,b"\xe9@example.org', "rejected", "no-mailbox"],
        ["nobody@example.org", "rejected", "no-mailbox"],
    ]


@pytest.mark.root
def test_a_mailbox_is_known_by_itself_and_delivered_to_taken_back(host: Host, tmp_path: Path) -> None:
    mbox = tmp_path / "mbox.gz"
    mbox.write_bytes(
        gzip.compress(
            b"From x@y Sat Nov 21 05:19:31 2026\nDelivered-To: joe-foo@v.example\n"
            b"To: Nobody <nobody@example.org>, joe@example.org\n\nbody\n"
        )
    )
    objects = [json.loads(line) for line in check(host, "--json", mbox).stdout.splitlines()]
    assert [(one["address"], one["verdict"]) for one in objects] == [
        ("foo@v.example", "accepted"),
        ("nobody@example.org", "rejected"),
        ("joe@example.org", "accepted"),
    ]
    only = check(host, "--csv", "--header", "delivered-to", mbox).stdout.splitlines()
    assert [line.split(",")[0] for line in only[1:]] == ["foo@v.example"]
    assert check(host, "--list", mbox).exit_code == 1  # "To: Nobody <..." is no address of the host


@pytest.mark.root
def test_a_lookup_that_hangs_does_not_hang_the_command(host: Host) -> None:
    host.file("home/joe/.qmail-foo", "|hang\n", uid=5001, gid=5001)
    addresses = b"joe@example.org\n" * 50 + b"joe-foo@example.org\n" + b"ann-x@example.org\n" * 50
    done = run(host, addresses, CVM_LOOKUP_TIMEOUT="1000")
    verdicts = Counter(tuple(line.split(",")[:3]) for line in done.stdout.splitlines()[1:])
    assert verdicts["joe-foo@example.org", "temporary failure", "deadline"] == 1
    assert verdicts["joe@example.org", "accepted", "mailbox"] == 50
    assert verdicts["ann-x@example.org", "accepted", "dotqmail-default"] == 50
    assert done.returncode == 111


@pytest.mark.root
def test_a_lookup_that_takes_its_process_along_costs_its_own_answer(host: Host) -> None:
    host.file("home/joe/.qmail-foo", "|die\n", uid=5001, gid=5001)
    done = run(host, b"joe-foo@example.org\njoe@example.org\n", CVM_LOOKUP_TIMEOUT=AN_HOUR)
    assert [line.split(",")[2] for line in done.stdout.splitlines()] == ["reason", "died", "mailbox"]


@pytest.mark.root
def test_a_line_that_is_too_long_is_a_temporary_failure(host: Host) -> None:
    done = check(host, "--csv", data=b"joe@example.org\n" + b"x" * 100_000 + b"@example.org\n")
    assert done.exit_code == 111
    assert "too-long" in done.stdout
    assert "line 2 is longer than 65536 bytes" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "variables", "status", "message"),
    [
        (["/nonexistent"], {}, 111, "/nonexistent: No such file or directory"),
        (["/"], {}, 111, "cvmctl: /: Is a directory"),
        (["--module", "nothing"], {}, 2, "nothing: found no such module, expected one of"),
        ([], {"CVM_QMAIL_MASK": "9"}, 100, "CVM_QMAIL_MASK"),
        ([], {"CVM_QMAIL_PROGRAMS": "nothing"}, 100, "CVM_QMAIL_PROGRAMS"),
        (["--show", "-1"], {}, 2, "--show"),
    ],
)
def test_what_is_wrong_is_reported_without_a_traceback(
    arguments: list[str], variables: dict[str, str], status: int, message: str
) -> None:
    done = check(None, *arguments, **variables)
    assert (done.exit_code, done.stdout) == (status, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["\N{CYRILLIC SMALL LETTER ZHE}", os.fsdecode(b"\xff")])
def test_a_header_with_an_odd_name_is_in_no_mailbox(name: str, tmp_path: Path) -> None:
    (tmp_path / "mbox").write_text("From a@b Thu Jan  1 00:00:00 2026\nTo: joe@example.org\n\n")
    done = check(None, "--json", "--header", name, tmp_path / "mbox")
    assert (done.exit_code, done.stdout) == (0, "")


@pytest.mark.root
def test_a_damaged_file_is_a_temporary_failure(host: Host, tmp_path: Path) -> None:
    (tmp_path / "list.gz").write_bytes(gzip.compress(os.urandom(1000).hex().encode())[:500])
    (tmp_path / "list.bz2").write_bytes(b"BZh9, and then something else")
    for name in ("list.gz", "list.bz2"):
        done = check(host, tmp_path / name)
        assert done.exit_code == 111
        assert f"cvmctl: {tmp_path / name}: " in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.root
def test_on_a_terminal_there_is_a_bar(host: Host, tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"joe@example.org\n" * 4_000)
    reader, terminal = pty.openpty()
    try:
        process = subprocess.Popen(
            [CVMCTL, "check", tmp_path / "list"],
            env=environment(host, {"TERM": "xterm", "COLUMNS": "80"}),
            stdout=subprocess.PIPE,
            stderr=terminal,
        )
        os.close(terminal)
        seen = b""
        try:
            while data := os.read(reader, 4096):
                seen += data
        except OSError:  # the terminal has gone
            pass
        out, _ = process.communicate(timeout=30)
    finally:
        os.close(reader)
    assert b"looking up" in seen
    assert b"100%" in seen
    assert b"4,000" in out
    assert process.returncode == 0
