"""Mail that is only forwarded, and whether it reaches nobody."""

from __future__ import annotations

import pytest

from cvm_qmail.answer import Answer, Verdict
from cvm_qmail.rules.forwards import ADDRESSES, STEPS, reach_nobody

NO = Answer(Verdict.REJECTED, "no-mailbox")
YES = Answer(Verdict.ACCEPTED, "mailbox")
ELSEWHERE = Answer(Verdict.OUT_OF_SCOPE, "remote")


def to(*addresses: bytes) -> Answer:
    return Answer(Verdict.ACCEPTED, "dotqmail", forwards=addresses)


@pytest.mark.parametrize(
    ("forwards", "world", "nobody"),
    [
        ((b"a@x",), {b"a@x": NO}, True),
        ((b"a@x", b"b@x"), {b"a@x": NO, b"b@x": NO}, True),
        ((b"a@x", b"b@x"), {b"a@x": NO, b"b@x": YES}, False),
        ((b"a@x",), {b"a@x": ELSEWHERE}, False),
        ((b"a@x",), {b"a@x": None}, False),
        ((), {}, False),
        ((b"a@x",), {b"a@x": to(b"b@x"), b"b@x": NO}, True),
        ((b"a@x",), {b"a@x": to(b"b@x", b"c@x"), b"b@x": NO, b"c@x": YES}, False),
        ((b"a@x",), {b"a@x": to(b"start@x")}, False),
        ((b"a@x",), {b"a@x": to(b"start@X")}, False),
        ((b"start@x",), {b"start@x": NO}, False),
        ((b"a@x",), {b"a@x": to(b"b@x"), b"b@x": to(b"a@x")}, False),
        ((b"a@x", b"b@x"), {b"a@x": to(b"c@x"), b"b@x": to(b"c@x"), b"c@x": NO}, True),
        ((b"nobody",), {b"nobody": NO}, True),
    ],
)
def test_all_have_to_be_rejected(forwards: tuple[bytes, ...], world: dict[bytes, Answer | None], nobody: bool) -> None:
    assert reach_nobody(b"start@x", forwards, world.__getitem__) is nobody


@pytest.mark.parametrize(("steps", "nobody"), [(STEPS - 1, True), (STEPS, False)])
def test_no_more_than_ten_steps_are_followed(steps: int, nobody: bool) -> None:
    world = {b"%d@x" % n: to(b"%d@x" % (n + 1)) for n in range(steps)}
    world[b"%d@x" % steps] = NO
    assert reach_nobody(b"start@x", (b"0@x",), world.__getitem__) is nobody


@pytest.mark.parametrize(("count", "nobody"), [(ADDRESSES, True), (ADDRESSES + 1, False)])
def test_no_more_than_fifty_addresses_are_looked_up(count: int, nobody: bool) -> None:
    asked: list[bytes] = []

    def judge(address: bytes) -> Answer:
        asked.append(address)
        return NO

    assert reach_nobody(b"start@x", [b"%d@x" % n for n in range(count)], judge) is nobody
    assert len(asked) <= ADDRESSES


def test_a_tree_of_forwards_is_bounded_as_a_whole() -> None:
    asked: list[bytes] = []

    def judge(address: bytes) -> Answer:
        asked.append(address)
        return to(*(address + b"%d" % n for n in range(10)))

    assert not reach_nobody(b"start@x", (b"a",), judge)
    assert len(asked) <= ADDRESSES


def test_an_address_is_judged_once_however_often_it_is_named() -> None:
    asked: list[bytes] = []

    def judge(address: bytes) -> Answer:
        asked.append(address)
        return NO

    assert reach_nobody(b"start@x", (b"a@x", b"a@X", b"A@x"), judge)
    assert asked == [b"a@x", b"A@x"]
