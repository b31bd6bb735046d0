"""Who asks for many addresses that do not exist."""

from __future__ import annotations

from cvm_qmail.gateway.probe_limit import KEPT, ProbeCounts, prober_of
from cvm_qmail.gateway.settings import ProbeLimit
from cvm_qmail.protocols.address import recipient
from cvm_qmail.protocols.question import Question


def question(
    address: bytes = b"no@ours.test", client: bytes | None = b"192.0.2.1", sender: bytes | None = None
) -> Question:
    return Question(recipient(address), sender, client)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_client_counts_before_its_sender_and_nobody_without_either() -> None:
    assert prober_of(question(sender=b"a@b")) == b"192.0.2.1"
    assert prober_of(question(client=None, sender=b"A@B")) == b"<a@b>"
    assert prober_of(question(client=None, sender=b"")) is None
    assert prober_of(question(client=None)) is None


def test_more_than_the_limit_throttles_for_its_time_and_no_longer() -> None:
    clock = Clock()
    counts = ProbeCounts(ProbeLimit(2, 60), clock)
    for n in range(2):
        counts.missing(question(b"no-%d@ours.test" % n))
    assert not counts.throttles(question())
    assert counts.throttled() == []
    clock.now = 30.0
    counts.missing(question(b"no-2@ours.test"))
    assert counts.throttles(question())
    assert counts.throttled() == [(b"192.0.2.1", 60.0)]
    clock.now = 89.9
    assert counts.throttles(question())
    clock.now = 90.0
    assert not counts.throttles(question())
    assert counts.throttled() == []
    counts.missing(question(b"no-3@ours.test"))
    assert not counts.throttles(question())


def test_few_in_each_stretch_of_time_never_throttle() -> None:
    clock = Clock()
    counts = ProbeCounts(ProbeLimit(2, 60), clock)
    for n in range(100):
        clock.now = n * 31.0
        counts.missing(question(b"no-%d@ours.test" % n))
        assert not counts.throttles(question())


def test_what_is_kept_is_bounded_and_the_busy_stay() -> None:
    counts = ProbeCounts(ProbeLimit(1, 3600), Clock())
    for n in range(KEPT + 500):
        counts.missing(question(b"no@ours.test", b"client %d" % n))
        counts.missing(question(b"no-%d@ours.test" % n, b"busy"))
    assert len(counts._probers) == KEPT
    assert counts.throttles(question(client=b"busy"))
    assert all(len(prober.missing) <= 2 for prober in counts._probers.values())


def test_without_a_limit_nothing_is_kept() -> None:
    counts = ProbeCounts(None, Clock())
    counts.missing(question())
    assert not counts.throttles(question())
    assert counts.throttled() == []
    assert len(counts._probers) == 0
