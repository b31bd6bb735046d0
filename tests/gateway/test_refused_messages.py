"""Messages that are to be refused at DATA."""

from __future__ import annotations

from cvm_qmail.gateway.refused_messages import KEPT, SECONDS, RefusedMessages


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_message_is_remembered_for_its_time() -> None:
    clock = Clock()
    messages = RefusedMessages(clock)
    messages.add(b"1")
    assert b"1" in messages
    assert b"2" not in messages
    clock.now = SECONDS + 1
    assert b"1" not in messages
    messages.add(b"2")
    assert list(messages._messages) == [b"2"]


def test_what_is_kept_is_bounded() -> None:
    messages = RefusedMessages(Clock())
    for n in range(KEPT + 10):
        messages.add(b"%d" % n)
    assert len(messages._messages) == KEPT
    assert b"%d" % (KEPT + 9) in messages
    assert b"0" not in messages
