"""What workers leave in shared memory for their supervisor, and the supervisor for them."""

from __future__ import annotations

import os

import pytest

from cvm_qmail.answer import Unavailable
from cvm_qmail.process.shared_memory import QUARANTINE, Slots


class Clock:
    """A time that passes when a test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_slot_says_when_a_lookup_began_and_when_there_is_none() -> None:
    clock = Clock()
    slot = Slots(2, clock)[1]
    seen = []

    def respond(request: bytes) -> bytes:
        seen.append(slot.began)
        return request

    assert (slot.began, slot.guard(respond)(b"x"), seen, slot.began) == (0.0, b"x", [100.0], 0.0)


def test_a_lookup_that_fails_is_over_as_well() -> None:
    slot = Slots(1, Clock())[0]

    def respond(request: bytes) -> bytes:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        slot.guard(respond)(b"x")
    assert slot.began == 0.0


def test_a_slot_says_where_the_worker_looks_in_this_request() -> None:
    slot = Slots(1, Clock())[0]
    seen = []

    def respond(request: bytes) -> bytes:
        seen.append(slot.resource)
        slot.mark(request)
        seen.append(slot.resource)
        return b""

    slot.guard(respond)(b"/home/joe")
    slot.guard(respond)(b"/home/ann")
    assert seen == [b"", b"/home/joe", b"", b"/home/ann"]


def test_a_slot_says_who_asked_what() -> None:
    slot = Slots(1, Clock())[0]
    slot.received(b"\2\0\0", ("127.0.0.1", 53))
    assert slot.question == (b"\2\0\0", b'["127.0.0.1", 53]')


@pytest.mark.parametrize("length", [512, 513, 5000])
def test_what_does_not_fit_is_cut_and_harms_no_neighbour(length: int) -> None:
    slots = Slots(2, Clock())
    slots[0].received(b"r" * length, "s" * length)
    slots[0].mark(b"p" * length)
    assert slots[0].resource == b"p" * 240
    assert slots[0].question == (b"r" * min(length, 513), (b'"' + b"s" * length)[:256])
    assert (slots[1].began, slots[1].resource, slots[1].question) == (0.0, b"", (b"", b""))


def test_clear_forgets_the_lookup_of_a_worker_that_is_gone() -> None:
    slot = Slots(1, Clock())[0]
    slot._began[0] = 5.0
    slot.clear()
    assert slot.began == 0.0


# -- places where a lookup hung ----------------------------------------------------------------------


def refused(slots: Slots, place: bytes) -> bool:
    try:
        slots[0].mark(place)
    except Unavailable as error:
        return (error.reason, error.where) == ("hang-backoff", place)
    return False


def test_a_quarantined_place_is_not_entered_for_a_while_and_then_it_is() -> None:
    clock = Clock()
    slots = Slots(1, clock)
    slots.quarantine(b"/home/joe")
    assert refused(slots, b"/home/joe")
    clock.now += QUARANTINE - 0.001
    assert refused(slots, b"/home/joe")
    clock.now += 0.002
    assert not refused(slots, b"/home/joe")


@pytest.mark.parametrize("place", [b"/home/jo", b"/home/joe/x", b"/home/ann", b"", b"/home/joe\0"])
def test_only_that_place_is_in_quarantine(place: bytes) -> None:
    slots = Slots(1, Clock())
    slots.quarantine(b"/home/joe")
    assert not refused(slots, place)


def test_a_place_with_a_long_name_is_in_quarantine_by_what_is_kept_of_it() -> None:
    slots = Slots(1, Clock())
    slots[0].mark(b"/" + b"x" * 1000)
    slots.quarantine(slots[0].resource)
    assert refused(slots, b"/" + b"x" * 1000)


def test_all_workers_see_it() -> None:
    slots = Slots(3, Clock())
    slots.quarantine(b"/home/joe")
    with pytest.raises(Unavailable):
        slots[2].mark(b"/home/joe")


def test_the_list_is_bounded_and_the_oldest_goes_first() -> None:
    slots = Slots(1, Clock())
    for number in range(65):
        slots.quarantine(b"/home/%d" % number)
    assert not refused(slots, b"/home/0")
    assert refused(slots, b"/home/1")
    assert refused(slots, b"/home/64")


def test_forgetting_spares_the_list_only_when_nothing_in_it_counts() -> None:
    clock = Clock()
    slots = Slots(1, clock)
    slots.quarantine(b"/home/joe")
    slots.forget()
    assert refused(slots, b"/home/joe")
    clock.now += QUARANTINE + 1
    slots.forget()
    assert not refused(slots, b"/home/joe")
    slots.quarantine(b"/home/joe")
    assert refused(slots, b"/home/joe")


def test_it_is_shared_with_processes_forked_later() -> None:
    clock = Clock()
    slots = Slots(1, clock)
    child = os.fork()
    if not child:
        slots[0].received(b"from the child", 1)
        slots[0]._began[0] = 7.0
        os._exit(0)
    os.waitpid(child, 0)
    assert (slots[0].began, slots[0].question[0]) == (7.0, b"from the child")


def test_a_value_half_written_does_no_harm() -> None:
    slots = Slots(1, Clock())
    slots[0]._resource[:] = b"\xff" * len(slots[0]._resource)
    slots[0]._quarantined[8:] = b"\xff" * (len(slots[0]._quarantined) - 8)
    slots[0]._until[0] = 1e9
    assert len(slots[0].resource) == 240
    assert not refused(slots, b"/home/joe")


def test_a_worker_is_needed_when_no_other_that_goes_before_it_is_free() -> None:
    slots = Slots(3, Clock())
    needed = []

    def respond(request: bytes) -> bytes:
        needed.append(slots[1].needed())
        return request

    assert [slots[number].needed() for number in range(3)] == [True] * 3  # nobody serves yet
    slots[0].serves(True)
    assert [slots[number].needed() for number in range(3)] == [True, False, False]
    slots[0].guard(respond)(b"x")
    assert needed == [True]  # the other one had begun a lookup
    slots[0].clear()  # and now it is gone
    assert slots[1].needed()
