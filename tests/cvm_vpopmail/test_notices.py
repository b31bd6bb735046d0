"""What all workers know together: lines once a minute, and what is left alone."""

from __future__ import annotations

import os
import select
import subprocess
import sys

import pytest

from cvm_vpopmail.notices import Board, Notices


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def notices(said: list[str], clock: Clock) -> Notices:
    return Notices(said.append, clock)


def test_a_kind_of_line_is_said_once_a_minute(notices: Notices, said: list[str], clock: Clock) -> None:
    for text in ("one", "two"):
        notices.say("kind", text)
    notices.say("other kind", "three")
    clock.now += 60
    notices.say("kind", "four")
    assert said == ["one", "three", "four"]


def test_a_server_that_failed_is_not_asked_for_a_while(notices: Notices, said: list[str], clock: Clock) -> None:
    assert notices.healthy
    notices.failed("mysql:db1", "database-down", "refused", 0.4)
    assert not notices.healthy
    assert notices.paused("mysql:db1")
    assert not notices.paused("mysql:db2")
    clock.now += 0.5
    assert not notices.paused("mysql:db1")
    assert notices.failing("mysql:db1")
    notices.pause_others("mysql:db1", 0.8)
    assert notices.paused("mysql:db1"), "one tries, the others need not"
    notices.recovered("mysql:db1")
    assert not notices.paused("mysql:db1")
    assert notices.healthy
    assert said == ["mysql:db1: refused", "mysql:db1: works again, after 0.5 seconds"]


def test_what_never_failed_is_not_said_to_work_again(notices: Notices, said: list[str]) -> None:
    notices.recovered("mysql:db1")
    assert said == []


def test_another_process_sees_it(notices: Notices) -> None:
    child = os.fork()
    if not child:
        notices.failed("place", "reason", "text", 10.0)
        os._exit(0)
    os.waitpid(child, 0)
    assert notices.paused("place")


def test_a_board_has_a_bound_and_forgets_the_least() -> None:
    board = Board()
    for number in range(1, 1000):
        board.put(f"what {number}", float(number))
    assert board.get("what 999") == 999.0
    assert board.get("what 1") == 0.0
    for number in range(1, 1000):
        board.put(f"what {number}", 0.0)
    assert board.empty


def test_a_line_is_escaped_and_bounded() -> None:
    program = "from cvm_vpopmail.notices import Notices; Notices().say('kind', 'a\\x1b[2J\\n' + 'b' * 10000)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stderr.startswith(b"cvm-vpopmail: a\\x1b[2J\\x0abbb")
    assert len(done.stderr) < 1100
    assert done.stderr.count(b"\n") == 1


def test_nobody_waits_for_a_reader_of_standard_error() -> None:
    ours, theirs = os.pipe()
    program = "import fcntl, os; from cvm_vpopmail.notices import Notices; notices = Notices()\n"
    program += "for number in range(5000): notices.say(f'kind {number}', 'x' * 900)\n"
    with subprocess.Popen([sys.executable, "-c", program], stderr=theirs) as process:
        os.close(theirs)
        assert process.wait(20) == 0
    assert select.select([ours], [], [], 0)[0]
    os.close(ours)
