"""cvmctl log: filters, summaries and digests of what a real server wrote."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from calling import called
from hosts import Host
from serving import PATIENCE, environment, serving, until

from cvm_qmail.answer import Recipient
from cvm_qmail.cvmctl.host.log_entries import Entry, parse
from cvm_qmail.gateway.service import json_line, text_line
from cvm_qmail.protocols.question import Question
from cvm_qmail.protocols.result import Result
from cvm_qmail.reasons import Outcome

CVMCTL = Path(sys.executable).with_name("cvmctl")

TEXT = """\
cvm-qmail: warning: something
2026-11-26_10:00:00.00000 Starting.
2026-11-26_10:00:01.00000 + joe@example.org joe mailbox /home/joe 85us
@4000000065 - nobody@Example.org alias no-mailbox /var/qmail/alias 91us
- joe@elsewhere.example - remote control/virtualdomains 40us
? <b>@example.org ann home-sticky /home/ann 6400us home has mode 1755
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "current"
    path.write_text(TEXT)
    return path


ESCAPED = r"""- a\x01\x20b\x5c@example.org alias no-mailbox /var/qmail/alias\x5c 91us
{"result": "-", "account": "a\\x01", "domain": "b\\x5c", "reason": "no-mailbox", "microseconds": 1}
"""


def log(*arguments: str) -> list[str]:
    done = called("log", *arguments, env=environment(None, {}))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_all_of_it(file: Path) -> None:
    assert log(str(file)) == TEXT.splitlines()


def test_what_is_escaped_in_the_log_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(ESCAPED)
    assert log(str(tmp_path / "log")) == log(str(tmp_path / "log"), "--outcome", "rejected") == ESCAPED.splitlines()
    assert r"         1  b\x5c" in log(str(tmp_path / "log"), "--summary")


def test_other_programs_send_nothing_to_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"- joe@\x1b[2J\xff alias no-mailbox / 91us\n")
    for arguments in ([], ["--summary"], ["--digest", "html"]):
        assert any(r"\x1b[2j\xff" in line.lower() for line in log(str(tmp_path / "log"), *arguments))


def test_an_address_that_looks_like_json_is_no_other_format() -> None:
    entry = parse('- {"result"@example.org alias no-mailbox - 85us')
    assert entry == Entry("rejected", '{"result"@example.org', "alias", "no-mailbox", "-", 85, "")


@pytest.mark.parametrize(
    ("question", "result"),
    [
        (Question(Recipient(b"joe", b"example.org"), client=b"192.0.2.7"), Result(Outcome.ACCEPTED, "mailbox")),
        (Question(Recipient(b"jo\xe9", b"example.org")), Result(Outcome.OUT_OF_SCOPE, "no-route")),
        (Question(Recipient(b"", None)), Result(Outcome.REJECTED, "")),
    ],
)
def test_a_gateways_lines_mean_the_same_in_both_formats(question: Question, result: Result) -> None:
    text, json = (parse(line("policy", question, result, 310e-6)) for line in (text_line, json_line))
    assert text is not None
    assert text == json
    assert (text.user, text.microseconds) == ("policy", 310)


@pytest.mark.parametrize(
    ("filters", "lines"),
    [
        (["--outcome", "accepted"], [2]),
        (["--outcome", "rejected"], [3]),
        (["--outcome", "out of scope"], [4]),
        (["--outcome", "temporary failure"], [5]),
        (["--reason", "home-sticky"], [5]),
        (["--domain", "EXAMPLE.org"], [2, 3, 5]),
        (["--user", "alias"], [3]),
        (["--domain", "example.org", "--outcome", "rejected"], [3]),
        (["--user", "nobody"], []),
    ],
)
def test_filters(file: Path, filters: list[str], lines: list[int]) -> None:
    assert log(str(file), *filters) == [TEXT.splitlines()[at] for at in lines]


@pytest.mark.parametrize(
    ("stamp", "day"),
    [
        ("2026-11-26_23:59:59.99999", "2026-11-26"),
        ("2026-11-27_00:00:00.00000", "2026-11-27"),
        ("@40000000692799a826b080bc", "2025-11-27"),
        ("2026-11-26T23:59:59+0100 mx1 cvm-qmail[7]:", "2026-11-26"),
        ("Nov 26 10:00:00 mx1 cvm-qmail[7]:", None),
    ],
)
def test_a_day(tmp_path: Path, stamp: str, day: str | None) -> None:
    line = f"{stamp} + joe@example.org joe mailbox /home/joe 85us"
    (tmp_path / "log").write_text(f"{line}\nnothing\n")
    days = ["2025-11-26", "2025-11-27", "2026-11-25", "2026-11-26", "2026-11-27"]
    assert [one for one in days if log(str(tmp_path / "log"), "--day", one)] == [day] * (day is not None)
    assert log(str(tmp_path / "log"), "--summary")[0] == "1 request"


def test_days_by_words(tmp_path: Path) -> None:
    today = datetime.now(UTC)
    lines = [
        f"{when:%Y-%m-%d_%H:%M:%S.00000} + joe@example.org joe mailbox - 85us" for when in (today - timedelta(1), today)
    ]
    (tmp_path / "log").write_text("\n".join(lines))
    assert [log(str(tmp_path / "log"), "--day", day) for day in ("yesterday", "today")] == [[line] for line in lines]
    done = called("log", "--day", "tuesday", env=environment(None, {}))
    assert "found 'tuesday', expected today, yesterday, or a date like 2" in done.stderr


def test_a_summary_and_a_digest(file: Path) -> None:
    summary = "\n".join(log(str(file), "--summary"))
    assert "4 requests" in summary
    assert "1  temporary failure: home-sticky" in summary
    assert "50% within 85 us" in summary
    page = "\n".join(log(str(file), "--digest", "html"))
    assert page.startswith("<!DOCTYPE html>")
    assert "<b>" not in page
    assert "home-sticky /home/ann" in page


def test_compressed_files_are_read_and_damaged_ones_named(tmp_path: Path) -> None:
    whole = gzip.compress(TEXT.encode())
    (tmp_path / "log.1.gz").write_bytes(whole)
    (tmp_path / "log.2.gz").write_bytes(whole[:-10])
    assert log(str(tmp_path / "log.1.gz")) == TEXT.splitlines()
    done = called("log", "--summary", str(tmp_path / "log.2.gz"), env=environment(None, {}))
    assert (done.returncode, done.stdout) == (111, "")
    assert done.stderr.startswith(f"cvmctl: {tmp_path}/log.2.gz: ")


def test_of_nothing() -> None:
    done = subprocess.run(
        [CVMCTL, "log", "--summary"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("0 requests")


@pytest.mark.root
@pytest.mark.parametrize("form", ["text", "json"])
def test_what_a_server_writes_is_understood(host: Host, form: str) -> None:
    with serving(host, CVM_LOG=form) as server:
        for account, domain in (("joe", "example.org"), ("nobody", "example.org"), ("x", "elsewhere.example")):
            server.ask(account, domain)
        for account in ("joe", "nobody", "elsewhere.example"):
            server.logged(account)
        entries = [entry for line in server.log.read_text().splitlines() if (entry := parse(line))]
    assert sorted((entry.outcome, entry.address, entry.reason) for entry in entries) == [
        ("accepted", "joe@example.org", "mailbox"),
        ("out of scope", "x@elsewhere.example", "remote"),
        ("rejected", "nobody@example.org", "no-mailbox"),
    ]
    assert all(isinstance(entry, Entry) and entry.microseconds > 0 for entry in entries)


def opened(pid: int, directory: Path) -> list[str]:
    """The files below a directory that a process has open."""
    names = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            names.append(os.readlink(fd))
    return [name for name in names if name.startswith(str(directory))]


def test_a_file_is_followed_when_it_is_replaced(file: Path) -> None:
    """A line that is written in two parts is one; only the last of the files stays open."""
    command = [CVMCTL, "log", "-f", file, "--outcome", "rejected"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(None, {}))
    timer = threading.Timer(PATIENCE, process.kill)
    timer.start()
    assert process.stdout is not None
    try:
        assert "nobody@Example.org" in process.stdout.readline()
        with file.open("a") as grown:
            grown.write("- one@example.org a no-mailbox - 1us\n- half@exam")
            grown.flush()
            assert "one@example.org" in process.stdout.readline()
            grown.write("ple.org a no-mailbox - 1us\n")
        assert "half@example.org" in process.stdout.readline()
        file.rename(file.with_name("old"))
        file.write_text("- two@example.org a no-mailbox - 1us\n")
        assert "two@example.org" in process.stdout.readline()
        file.write_text("- 3@example.org a no-mailbox - 1us\n")
        assert "3@example.org" in process.stdout.readline()
        for number in range(4, 7):
            file.rename(file.with_name("old"))
            file.write_text(f"- {number}@example.org a no-mailbox - 1us\n")
            assert f"{number}@example.org" in process.stdout.readline()
        until(lambda: opened(process.pid, file.parent) == [str(file)], "only that one is open")
    finally:
        timer.cancel()
        process.kill()
        process.stdout.close()
        process.wait()
