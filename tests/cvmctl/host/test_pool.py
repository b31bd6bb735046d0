"""Lookups on all cores: in order, whole, and never longer than the deadline."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest
from serving import AN_HOUR, alive, until

from cvm_qmail.answer import Answer, Recipient, Unavailable, Verdict
from cvm_qmail.cvmctl.host.pool import AHEAD, PARCEL, Pool, Result, look_up_one
from cvm_qmail.cvmctl.host.verdicts import FAILED
from cvm_qmail.process import shared_memory
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import HangGuard

HURRIED = Settings.from_environment({"CVM_LOOKUP_TIMEOUT": "600"})
PATIENT = Settings.from_environment({"CVM_LOOKUP_TIMEOUT": AN_HOUR})


def service(_: Settings, hang_guard: HangGuard) -> Callable[[bytes], Result]:
    """Accepts; an address can ask for error."""

    def lookup(asked: Recipient) -> Answer:
        if asked.account.startswith(b"report-"):
            os.write(int(asked.account.partition(b"-")[2]), b"%d\n" % os.getpid())
        if asked.account.startswith((b"hang", b"report-")):
            hang_guard.mark(b"/dead/" + asked.account)
            while True:
                signal.pause()
        if asked.account == b"die":
            os.kill(os.getpid(), signal.SIGKILL)
        if asked.account == b"raise":
            raise RuntimeError("s3cret")
        if asked.account == b"error":
            raise Unavailable("home", "away", b"/home/joe")
        if asked.account == b"pid":
            return Answer(Verdict.ACCEPTED, "dotqmail", b"%d" % os.getpid())
        return Answer(Verdict.ACCEPTED, "mailbox", asked.account)

    return lambda address: look_up_one(address, address, lookup)


def numbered(count: int) -> Iterator[bytes]:
    return (b"%d@x" % number for number in range(count))


def ask(addresses: list[bytes], count: int = 2) -> list[Result]:
    with Pool(HURRIED, service, count) as pool:
        return list(pool.ask(addresses))


@pytest.mark.parametrize("count", [0, 1, PARCEL, PARCEL + 1, 5 * PARCEL * AHEAD])
def test_answers_come_in_the_order_of_the_questions(count: int) -> None:
    with Pool(HURRIED, service, 2) as pool:
        assert [answer.asked for answer in pool.ask(numbered(count))] == list(numbered(count))


def test_several_processes_work_and_all_are_gone_at_the_end() -> None:
    answers = ask([b"pid@x"] * PARCEL * 20, 3)
    pids = {int(answer.user) for answer in answers}
    assert os.getpid() not in pids
    assert 1 < len(pids) <= 3
    until(lambda: not any(map(alive, pids)), "the workers are gone")


def test_a_lookup_that_hangs_costs_its_own_answer_only() -> None:
    addresses = [*numbered(PARCEL // 2), b"hang@x", *numbered(PARCEL * 3)]
    answers = ask(addresses)
    assert [answer.asked for answer in answers] == addresses
    late = [answer for answer in answers if answer.mark == FAILED]
    assert [(answer.asked, answer.reason, answer.where) for answer in late] == [(b"hang@x", "deadline", b"/dead/hang")]


def test_where_one_hung_nobody_looks_again_for_a_while() -> None:
    answers = ask([b"hang@x"] * 1000)
    reasons = [answer.reason for answer in answers]
    assert set(reasons) == {"deadline", "hang-backoff"}
    assert reasons.count("deadline") <= 2  # each of two workers once, at the most


def test_when_its_time_is_over_it_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "QUARANTINE", 0.0)
    assert [answer.reason for answer in ask([b"hang@x"] * 2, 1)] == ["deadline", "deadline"]


def test_a_lookup_that_kills_its_process_costs_its_own_answer_only() -> None:
    addresses = [b"1@x", b"die@x", b"2@x", b"die@x", b"3@x"]
    assert [answer.reason for answer in ask(addresses)] == ["mailbox", "died", "mailbox", "died", "mailbox"]


def test_an_error_and_an_internal_one_are_temporary_failures() -> None:
    error, internal = ask([b"error@x", b"raise@x"])
    assert error == Result(b"error@x", b"error@x", FAILED, "home", b"", b"/home/joe", "away")
    assert (internal.mark, internal.reason) == (FAILED, "internal-error")
    assert "RuntimeError" in internal.detail
    assert "s3cret" not in internal.detail


def test_who_stops_listening_leaves_nobody_behind() -> None:
    with Pool(HURRIED, service, 2) as pool:
        first = next(pool.ask([b"pid@x"] * 1000))
    until(lambda: not alive(int(first.user)), "the worker is gone")


def test_questions_are_not_taken_far_ahead_of_the_answers() -> None:
    taken = 0

    def counted() -> Iterator[bytes]:
        nonlocal taken
        for address in numbered(100 * PARCEL):
            taken += 1
            yield address

    with Pool(HURRIED, service, 2) as pool:
        assert next(pool.ask(counted())).asked == b"0@x"
    assert taken <= 2 * AHEAD * PARCEL


def test_a_worker_that_hangs_dies_with_its_parent() -> None:
    ready, writing = os.pipe()
    parent = os.fork()
    if not parent:
        try:
            with Pool(PATIENT, service, 1) as pool:
                list(pool.ask([b"1@x", b"report-%d@x" % writing]))
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(ready, "rb") as line:
        worker = int(line.readline())
        assert alive(worker)
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        until(lambda: not alive(worker), "the worker is gone")
