"""What an audit knows: counted exactly, however much waits in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cvm_qmail.tool import ledger as module
from cvm_qmail.tool.ledger import DAY, Day, Gain, Kind, Ledger
from cvm_qmail.tool.sendlog import NO_MAILBOX, Delivery, Message, Outcome
from cvm_qmail.tool.workers import Told


@pytest.fixture(params=[1, 1 << 15], ids=["little memory", "much memory"])
def ledger(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setattr(module, "PENDING", request.param)
    return Ledger()


def delivery(recipient: bytes, outcome: Outcome = Outcome.SUCCESS, text: bytes = b"", day: int | None = 0) -> Delivery:
    when = None if day is None else day * DAY
    return Delivery(0, 1, 7, True, recipient, 100, outcome, text, when, when)


def bounce(recipient: bytes, day: int | None = 0) -> Delivery:
    return delivery(recipient, Outcome.FAILURE, NO_MAILBOX, day)


def message(*failed: bytes, size: int = 100, bounce_qp: int | None = 9, ended: bool = True) -> Message:
    return Message(7, size, b"", 1, 2, bounce_qp, ended, failed, 0)


def judge(ledger: Ledger, **marks: str) -> None:
    """Gives verdicts by account; the rest is accepted."""
    ledger.flush()

    def verdicts() -> Iterator[Told]:
        for name in ledger.logged():
            mark = marks.get(name.partition(b"@")[0].decode(), "+")
            yield Told(name, name, mark, {"+": "mailbox", "-": "no-mailbox"}.get(mark, "home"))

    assert len(list(ledger.judge(verdicts()))) == ledger.addresses


def test_delivered_and_refused_is_listed_unless_it_has_gone_since(ledger: Ledger) -> None:
    for event in (
        delivery(b"alarm@x"),
        bounce(b"alarm@x"),
        delivery(b"alarm@x", day=3),
        delivery(b"gone@x"),
        bounce(b"gone@x"),
        delivery(b"odd_one@x"),
        delivery(b"fine@x"),
    ):
        ledger.delivery(event)
    judge(ledger, alarm="-", gone="-", odd_one="-")
    sure = ledger.refused_though_delivered(10, exact=True)
    assert [(one.address, one.deliveries, one.last_day) for one in sure.first] == [(b"alarm@x", 2, "1970-01-04")]
    assert [one.address for one in ledger.refused_though_delivered(10, exact=False).first] == [b"odd_one@x"]
    assert ledger.gone() == 1


def test_bounced_and_accepted_is_listed_unless_it_was_made_since(ledger: Ledger) -> None:
    for event in (
        bounce(b"miss@x"),
        bounce(b"made@x"),
        delivery(b"made@x"),
        delivery(b"program@x", Outcome.FAILURE, b"no such thing"),
    ):
        ledger.delivery(event)
    judge(ledger)
    assert [one.address for one in ledger.accepted_though_bounced(10).first] == [b"miss@x"]


def test_a_deferral_does_not_change_what_became_of_the_last(ledger: Ledger) -> None:
    for event in (delivery(b"a@x"), delivery(b"a@x", Outcome.DEFERRAL), delivery(b"a@x", Outcome.UNFINISHED)):
        ledger.delivery(event)
    judge(ledger, a="-")
    assert ledger.refused_though_delivered(10, exact=True).total == 1


def test_the_gain_counts_messages_that_nobody_would_have_taken_in(ledger: Ledger) -> None:
    for name in (b"a@x", b"b@X", b"c@y", b"fine@y"):
        ledger.delivery(bounce(name))
    ledger.delivery(delivery(b"a@x", Outcome.FAILURE, b"expired"))
    ledger.message(message(b"a@x", b"c@y", size=1000))
    ledger.message(message(b"b@X", b"b@X", size=200, bounce_qp=None))
    ledger.message(message(b"c@y", b"fine@y", size=30))
    ledger.message(message(b"c@y", size=4, ended=False))
    ledger.message(message(size=5))
    judge(ledger, a="-", b="-", c="-")
    assert ledger.gain() == Gain(b"", 4, 3, 2, 1200, 1)
    assert ledger.domains(10) == [Gain(b"x", 3, 2, 2, 1200, 1), Gain(b"y", 1, 1, 0, 0, 0)]
    assert [(one.address, one.deliveries) for one in ledger.names(2).first] == [(b"a@x", 2), (b"b@X", 1)]
    assert ledger.names(2).total == 3


def test_nothing_gained_is_nothing(ledger: Ledger) -> None:
    judge(ledger)
    assert ledger.gain() == Gain(b"", 0, 0, 0, 0, 0)
    assert (ledger.domains(10), list(ledger.days()), ledger.matrix()) == ([], [], {})


def test_days_and_the_matrix_count_every_delivery(ledger: Ledger) -> None:
    for day in (0, 0, 20000):
        for event in (
            delivery(b"a@x", day=day),
            bounce(b"no@x", day=day),
            bounce(b"a@x", day=day),
            delivery(b"a@x", Outcome.DEFERRAL, day=day),
            delivery(b"tell@x", Outcome.UNFINISHED, day=day),
        ):
            ledger.delivery(event)
    ledger.delivery(delivery(b"a@x", day=None))
    judge(ledger, no="-", tell="?")
    assert list(ledger.days()) == [Day("1970-01-01", 2, 2, 2, 2), Day("2024-10-04", 1, 1, 1, 1)]
    assert ledger.matrix() == {
        (Kind.DELIVERED.value, "+"): 4,
        (Kind.NO_MAILBOX.value, "-"): 3,
        (Kind.NO_MAILBOX.value, "+"): 3,
        (Kind.DEFERRED.value, "+"): 3,
        (Kind.UNFINISHED.value, "?"): 3,
    }
    assert [one.address for one in ledger.cannot_be_told(10).first] == [b"tell@x"]


def test_all_addresses_are_asked_for_once(ledger: Ledger) -> None:
    names = [b"%d@x" % number for number in range(2500)]
    for name in names * 2:
        ledger.delivery(delivery(name))
    ledger.flush()
    assert sorted(ledger.logged()) == sorted(names)
