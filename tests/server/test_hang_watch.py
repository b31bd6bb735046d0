"""A hang is distinguished from a pause by the state of the worker."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
from serving import until

from cvm_qmail.server.hang_watch import LATE, REPEAT, UNDEAD, HangWatch, state_of

LIMIT = 4.0
HOME = b"/home/joe"
PID = 17


def states(*letters: str) -> HangWatch:
    """A watch that sees these states, the last one from then on."""
    left = list(letters)
    return HangWatch(LIMIT, lambda _: left.pop(0) if len(left) > 1 else left[0])


def overdue(watch: HangWatch, *, began: float = 100.0, step: float = 0.5) -> float:
    """Looks until the worker is past its deadline; when that is."""
    now = began
    while True:
        watch.look(now)
        if watch.left(PID, began, now) <= 0.0:
            return now
        now += step
        watch.next_look(now)


@pytest.mark.parametrize(
    ("letters", "hangs"),
    [
        ("S", True),
        ("D", True),
        ("SDSD", True),
        ("R", False),  # starved of the processor
        ("T", False),  # stopped by a signal
        ("t", False),  # stopped by a debugger
        ("SSTS", False),  # stopped for a part of the time
        ("RS", False),
    ],
)
def test_it_hangs_if_it_is_blocked_in_every_look(letters: str, hangs: bool) -> None:
    watch = states(*letters)
    assert watch.killed(PID, HOME, overdue(watch)) is hangs


def test_where_the_state_is_unknown_the_second_time_decides() -> None:
    watch = states("")
    assert not watch.killed(PID, HOME, overdue(watch))
    watch.ended(PID)
    assert watch.killed(PID, HOME, overdue(watch, began=110.0))


def test_the_second_time_is_one_that_follows_soon_and_at_the_same_resource() -> None:
    watch = states("R")
    assert not watch.killed(PID, HOME, overdue(watch))
    assert not watch.killed(PID, b"/home/ann", overdue(watch, began=110.0))
    assert not watch.killed(PID, HOME, overdue(watch, began=110.0 + REPEAT))


def test_too_few_looks_prove_nothing() -> None:
    watch = states("S")
    assert not watch.killed(PID, HOME, overdue(watch, step=LIMIT))


def test_without_a_resource_nothing_is_to_blame() -> None:
    watch = states("S")
    assert not watch.killed(PID, b"", overdue(watch))


def test_each_lookup_is_looked_at_by_itself() -> None:
    watch = states("T", "T", "S")
    watch.left(PID, 100.0, 102.0)
    watch.left(PID, 100.0, 103.0)
    assert watch.killed(PID, HOME, overdue(watch, began=104.0))


def test_the_supervisors_own_pause_gives_every_worker_another_deadline() -> None:
    watch = states("S")
    watch.look(100.0)
    watch.next_look(100.1)
    late = 100.1 + LATE + 50.0
    watch.look(late)
    assert watch.left(PID, 100.0, late) == LIMIT


def test_a_stopped_worker_has_a_deadline_without_a_lookup() -> None:
    watch = states("T")
    watch.stopped(PID, 100.0)
    assert watch.is_stopped(PID)
    assert watch.left(PID, 0.0, 101.0) == LIMIT - 1.0
    assert not watch.killed(PID, HOME, 100.0 + LIMIT)


def test_a_worker_that_runs_again_and_is_idle_has_none() -> None:
    watch = states("T")
    watch.stopped(PID, 100.0)
    watch.continued(PID)
    assert watch.left(PID, 0.0, 100.0 + 2 * LIMIT) == LIMIT


def test_a_killed_process_that_does_not_end_hangs_in_the_kernel() -> None:
    watch = states("D")
    assert not watch.undead(PID, 100.0)
    watch.killed(PID, HOME, 100.0)
    assert not watch.undead(PID, 100.0 + UNDEAD)
    assert watch.undead(PID, 100.1 + UNDEAD)


def test_the_state_is_that_of_the_process() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        until(lambda: state_of(process.pid) == "S", "it sleeps")
        process.send_signal(signal.SIGSTOP)
        until(lambda: state_of(process.pid) == "T", "it is stopped")
        process.kill()
    assert state_of(process.pid) == ""
    assert state_of(os.getpid()) == "R"
