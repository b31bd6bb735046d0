"""One escaped line per request, to a descriptor that may be full, slow or gone."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from events import event
from hosts import temporary_directory

from cvm_qmail.escape import escape, escape_text
from cvm_qmail.exits import describe_exception
from cvm_qmail.observe.log import ATOMIC, BACKLOG, GATHER, PAUSE, Log, as_line
from cvm_qmail.protocols.cvm.responder import code_of
from cvm_qmail.service.events import Event

EVENT = event()


# -- escaping -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        (b"joe+x.y@z!~", "joe+x.y@z!~"),
        (b"a b", "a\\x20b"),
        (b"a\nb\r\0\t\x1b[m\x7f", "a\\x0ab\\x0d\\x00\\x09\\x1b[m\\x7f"),
        (b"\\", "\\x5c"),
        (b"\\x0a", "\\x5cx0a"),
        (b"\xe4\xff", "\\xe4\\xff"),
        (b"", ""),
    ],
)
def test_odd_bytes_are_written_in_hex(text: bytes, escaped: str) -> None:
    assert escape(text) == escaped


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("two words", "two words"),
        ("a\nb", "a\\x0ab"),
        ("\u00e4", "\\xc3\\xa4"),
        ("\u2028", "\\xe2\\x80\\xa8"),
        ("\udcff", "\\xff"),  # a byte of a file name
        ("\ud800", "\\xed\\xa0\\x80"),  # half a character
    ],
)
def test_human_readable_text_keeps_its_blanks(text: str, escaped: str) -> None:
    assert escape_text(text) == escaped


# -- lines --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "seconds", "line"),
    [
        (EVENT, 85.2e-6, "+ joe-foo@example.org joe dotqmail /home/joe/.qmail-foo 85us"),
        (event("-", user=b"", where=b""), 1.5, "- joe-foo@example.org - dotqmail - 1500000us"),
        (event(domain=None), 0, "+ joe-foo joe dotqmail /home/joe/.qmail-foo 0us"),
        (event(domain=b""), 0, "+ joe-foo@ joe dotqmail /home/joe/.qmail-foo 0us"),
        (event(account=b"", domain=None), 0, "+ - joe dotqmail /home/joe/.qmail-foo 0us"),
        (event(account=b"", domain=b""), 0, "+ @ joe dotqmail /home/joe/.qmail-foo 0us"),
        (
            event("?", detail="Permission denied"),
            0,
            "? joe-foo@example.org joe dotqmail /home/joe/.qmail-foo 0us Permission denied",
        ),
        (
            event(account=b"x\n+ joe@example.org", where=b"/a b"),
            0,
            "+ x\\x0a+\\x20joe@example.org@example.org joe dotqmail /a\\x20b 0us",
        ),
    ],
)
def test_a_line_begins_as_the_c_programs_does(entry: Event, seconds: float, line: str) -> None:
    assert as_line(entry, seconds) == line


def test_the_same_as_json() -> None:
    assert json.loads(as_line(event(account=b"j\xf6e", where=b"", detail="in words\n"), 85.2e-6, "json", code_of)) == {
        "result": "+",
        "code": 0,
        "account": "j\\xf6e",
        "domain": "example.org",
        "user": "joe",
        "reason": "dotqmail",
        "where": None,
        "microseconds": 85,
        "detail": "in words\\x0a",
    }


def test_json_distinguishes_no_domain_from_an_empty_one() -> None:
    assert [json.loads(as_line(event(domain=domain), 0, "json", code_of))["domain"] for domain in (None, b"")] == [
        None,
        "",
    ]


def test_an_exception_is_logged_by_type_and_place_without_its_words() -> None:
    try:
        raise KeyError("secret")
    except KeyError:
        text = describe_exception()
    assert text.startswith("KeyError at test_log.py:")
    assert text.endswith(":test_an_exception_is_logged_by_type_and_place_without_its_words")
    assert "secret" not in text


# -- where they go ------------------------------------------------------------------------------------


@contextmanager
def pipe(form: str = "text", clock: Callable[[], float] = lambda: 0.0) -> Iterator[tuple[Log, int]]:
    """A log into a pipe, and the end from which to read it."""
    out, into = os.pipe()
    os.set_blocking(out, False)
    try:
        yield Log(into, form, clock, code_of), out
    finally:
        os.close(into)
        os.close(out)


def taken(fd: int) -> bytes:
    """Everything that is in the pipe."""
    parts = []
    try:
        while part := os.read(fd, 1 << 16):
            parts.append(part)
    except BlockingIOError:
        pass
    return b"".join(parts)


def test_lines_wait_for_flush() -> None:
    with pipe() as (log, out):
        log.request(EVENT)
        assert taken(out) == b""
        log.flush()
        assert taken(out) == as_line(EVENT, 0).encode() + b"\n"


def test_the_time_is_what_has_passed_since_the_request_began() -> None:
    with temporary_directory() as directory:
        fd = os.open(directory / "log", os.O_RDWR | os.O_CREAT)
        log = Log(fd, "text", lambda: 7.5, code_of)
        log.request(event(began=7.0))
        log.flush()
        os.close(fd)
        assert (directory / "log").read_bytes().endswith(b" 500000us\n")


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_answer_given_again_is_logged_with_a_time_of_its_own(form: str) -> None:
    with pipe(form, lambda: 7.5) as (log, out):
        token = log.request(event(began=7.0))
        log.repeat(token, 7.25)
        log.flush()
        first, second = taken(out).splitlines()
    assert b"500000" in first
    assert second == first.replace(b"500000", b"250000")


def test_a_new_answer_is_logged_when_it_is_out() -> None:
    with pipe() as (log, out):
        log.request(EVENT)
        log.settle()
        assert len(taken(out).splitlines()) == 1


@pytest.mark.parametrize("again", [False, True], ids=["new", "again"])
def test_lines_are_gathered_under_load(again: bool) -> None:
    with pipe() as (log, out):
        token = log.request(EVENT)
        log.settle()
        taken(out)

        def one_more() -> None:
            if again:
                log.repeat(token, 0.0)
            else:
                log.request(EVENT)
            log.settle()

        for _ in range(GATHER - 1):
            one_more()
        assert taken(out) == b""
        one_more()
        assert len(taken(out).splitlines()) == GATHER


def test_a_temporary_failure_is_logged_at_once() -> None:
    with pipe() as (log, out):
        log.request(EVENT)
        log.flush()
        taken(out)
        log.request(event())
        log.request(event("?"))
        log.settle()
        assert [line[:1] for line in taken(out).splitlines()] == [b"+", b"?"]


def test_without_load_no_line_waits() -> None:
    now = [0.0]
    with pipe(clock=lambda: now[0]) as (log, out):
        token = log.request(EVENT)
        log.flush()
        taken(out)
        for _ in range(3):
            now[0] += 2 * PAUSE
            log.repeat(token, now[0])
            log.settle()
            assert len(taken(out).splitlines()) == 1
            now[0] += 2 * PAUSE
            log.request(event(began=now[0]))
            log.settle()
            assert len(taken(out).splitlines()) == 1


def test_lines_stay_in_order() -> None:
    with pipe() as (log, out):
        token = log.request(event(account=b"1"))
        log.repeat(token, 0.0)
        log.request(event(account=b"2"))
        log.repeat(token, 0.0)
        log.line("? 3")
        assert [line[2:3] for line in taken(out).splitlines()] == [b"1", b"1", b"2", b"1", b"3"]


@pytest.mark.parametrize(("form", "line"), [("text", b"Starting.\n"), ("json", b'{"message": "Starting."}\n')])
def test_lines_of_the_servers_own_go_at_once(form: str, line: bytes) -> None:
    with pipe(form) as (log, out):
        log.line("Starting.")
        assert taken(out) == line


def test_a_full_pipe_delays_lines_and_never_blocks_or_tears_one() -> None:
    with pipe() as (log, out):
        count = 3000
        for number in range(count):  # far more than a pipe holds, less than the backlog
            log.request(event(account=b"%d" % number))
            log.flush()
        read = b""
        while more := taken(out):
            read += more
            log.flush()
        lines = read.splitlines()
    assert [int(line.split(b"@")[0][2:]) for line in lines] == list(range(count))


def test_what_is_written_at_once_is_whole_lines_that_a_pipe_takes_whole() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)  # keeps what is written at once together
    with ours, theirs:
        log = Log(ours.fileno(), "text", lambda: 0.0, code_of)
        for number in range(200):
            log.request(event(account=b"%d" % number))
        log.flush()
        theirs.setblocking(False)
        writes = []
        with suppress(BlockingIOError):
            while True:
                writes.append(theirs.recv(1 << 20))
    assert len(writes) > 1
    assert all(len(write) <= ATOMIC and write.endswith(b"\n") for write in writes)


def test_beyond_the_backlog_lines_are_counted_and_the_count_is_logged() -> None:
    line = as_line(EVENT, 0).encode() + b"\n"
    count = BACKLOG // len(line) + 100
    with pipe() as (log, out):
        for _ in range(count):
            log.request(EVENT)
        read = b""
        log.flush()
        while more := taken(out):
            read += more
            log.flush()
    lines = read.splitlines()
    lost = int(lines[-1].split()[1])
    assert lines[-1] == b"? %d log lines were lost: nobody read them in time" % lost
    assert 0 < lost < 100
    assert (len(lines) - 1) + lost == count


@pytest.mark.parametrize("detail", ["Permission denied", "x" * 5000])
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_line_too_long_for_a_pipe_does_no_harm_to_those_behind_it(form: str, detail: str) -> None:
    odd = b"d/" + b"\xff" * 496  # below a directory .qmail-d that joe may not search, asked in version 1
    where = b"/srv/mail/home/virtual/customers/example.org/accounts/joe/.qmail-" + odd
    long = event(account=b"joe-" + odd, reason="dotqmail-denied", where=where, detail=detail)
    with pipe(form) as (log, out):
        for each in (EVENT, long, EVENT):
            log.request(each)
        read = b""
        log.flush()
        while more := taken(out):
            read += more
            log.flush()
    lines = read.splitlines()
    assert lines[0] == lines[-1]
    assert max(map(len, lines)) < ATOMIC


def test_a_log_that_nobody_reads_any_more_does_no_harm() -> None:
    out, into = os.pipe()
    log = Log(into, "text", lambda: 0.0, code_of)
    os.close(out)
    for _ in range(3):
        log.request(EVENT)
        log.flush()
    os.close(into)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a log lives as long as its process
def test_a_socket_as_log_is_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        log = Log(ours.fileno(), "text", lambda: 0.0, code_of)
        for _ in range(20000):
            log.request(EVENT)
            log.flush()
        theirs.setblocking(False)
        assert theirs.recv(1 << 20).startswith(b"+ joe-foo@example.org")
        assert ours.getblocking()  # its flags are left as they were
