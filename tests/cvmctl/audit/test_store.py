"""What an audit knows: counted exactly, however much waits in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from cvm_qmail.cvmctl.audit import store as module
from cvm_qmail.cvmctl.audit.figures import DAY, Day, Gain, Kind
from cvm_qmail.cvmctl.audit.sendlog import Delivery, Message, Outcome
from cvm_qmail.cvmctl.audit.store import Store
from cvm_qmail.cvmctl.host.pool import Result

NO_MAILBOX = b"Sorry,_no_mailbox_here_by_that_name._(#5.1.1)/"


@pytest.fixture(params=[1, 1 << 15], ids=["little memory", "much memory"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(module, "PENDING", request.param)
    with closing(Store()) as made:
        yield made


def delivery(recipient: bytes, outcome: Outcome = Outcome.SUCCESS, text: bytes = b"", day: int | None = 0) -> Delivery:
    when = None if day is None else day * DAY
    return Delivery(0, 1, 7, True, recipient, 100, outcome, text, when, when)


def bounce(recipient: bytes, day: int | None = 0) -> Delivery:
    return delivery(recipient, Outcome.FAILURE, NO_MAILBOX, day)


def message(*failed: bytes, size: int = 100, bounce_qp: int | None = 9, ended: bool = True) -> Message:
    return Message(7, size, b"", 1, 2, bounce_qp, ended, failed, 0)


def judge(store: Store, **marks: str) -> None:
    """Gives verdicts by account; the rest is accepted."""
    store.flush()

    def verdicts() -> Iterator[Result]:
        for name in store.logged():
            mark = marks.get(name.partition(b"@")[0].decode(), "+")
            yield Result(name, name, mark, {"+": "mailbox", "-": "no-mailbox"}.get(mark, "home"))

    assert len(list(store.judge(verdicts()))) == store.addresses


def test_delivered_and_refused_is_listed_unless_it_has_gone_since(store: Store) -> None:
    for event in (
        delivery(b"alarm@x"),
        bounce(b"alarm@x"),
        delivery(b"alarm@x", day=3),
        delivery(b"gone@x"),
        bounce(b"gone@x"),
        delivery(b"odd_one@x"),
        delivery(b"fine@x"),
    ):
        store.delivery(event)
    judge(store, alarm="-", gone="-", odd_one="-")
    sure = store.refused_though_delivered(10, exact=True)
    assert [(one.address, one.deliveries, one.last_day) for one in sure.first] == [(b"alarm@x", 2, "1970-01-04")]
    assert [one.address for one in store.refused_though_delivered(10, exact=False).first] == [b"odd_one@x"]
    assert store.gone() == 1


def test_bounced_and_accepted_is_listed_unless_it_was_made_since(store: Store) -> None:
    for event in (
        bounce(b"miss@x"),
        bounce(b"made@x"),
        delivery(b"made@x"),
        delivery(b"program@x", Outcome.FAILURE, b"no such thing"),
    ):
        store.delivery(event)
    judge(store)
    assert [one.address for one in store.accepted_though_bounced(10).first] == [b"miss@x"]


def test_a_deferral_does_not_change_what_became_of_the_last(store: Store) -> None:
    for event in (delivery(b"a@x"), delivery(b"a@x", Outcome.DEFERRAL), delivery(b"a@x", Outcome.UNFINISHED)):
        store.delivery(event)
    judge(store, a="-")
    assert store.refused_though_delivered(10, exact=True).total == 1


def test_the_gain_counts_messages_that_nobody_would_have_taken_in(store: Store) -> None:
    for name in (b"a@x", b"b@X", b"c@y", b"fine@y"):
        store.delivery(bounce(name))
    store.delivery(delivery(b"a@x", Outcome.FAILURE, b"expired"))
    store.message(message(b"a@x", b"c@y", size=1000))
    store.message(message(b"b@X", b"b@X", size=200, bounce_qp=None))
    store.message(message(b"c@y", b"fine@y", size=30))
    store.message(message(b"c@y", size=4, ended=False))
    store.message(message(size=5))
    judge(store, a="-", b="-", c="-")
    assert store.gain() == Gain(b"", 4, 3, 2, 1200, 1)
    assert store.domains(10) == [Gain(b"x", 3, 2, 2, 1200, 1), Gain(b"y", 1, 1, 0, 0, 0)]
    assert [(one.address, one.deliveries) for one in store.names(2).first] == [(b"a@x", 2), (b"b@X", 1)]
    assert store.names(2).total == 3


def test_nothing_gained_is_nothing(store: Store) -> None:
    judge(store)
    assert store.gain() == Gain(b"", 0, 0, 0, 0, 0)
    assert (store.domains(10), list(store.days()), store.matrix()) == ([], [], {})


def test_days_and_the_matrix_count_every_delivery(store: Store) -> None:
    for day in (0, 0, 20000):
        for event in (
            delivery(b"a@x", day=day),
            bounce(b"no@x", day=day),
            bounce(b"a@x", day=day),
            delivery(b"a@x", Outcome.DEFERRAL, day=day),
            delivery(b"later@x", Outcome.UNFINISHED, day=day),
        ):
            store.delivery(event)
    store.delivery(delivery(b"a@x", day=None))
    judge(store, no="-", later="?")
    assert list(store.days()) == [Day("1970-01-01", 2, 2, 2, 2), Day("2024-10-04", 1, 1, 1, 1)]
    assert store.matrix() == {
        (Kind.DELIVERED.value, "+"): 4,
        (Kind.NO_MAILBOX.value, "-"): 3,
        (Kind.NO_MAILBOX.value, "+"): 3,
        (Kind.DEFERRED.value, "+"): 3,
        (Kind.UNFINISHED.value, "?"): 3,
    }
    assert [one.address for one in store.temporary_failures(10).first] == [b"later@x"]


def test_all_addresses_are_asked_for_once(store: Store) -> None:
    names = [b"%d@x" % number for number in range(2500)]
    for name in names * 2:
        store.delivery(delivery(name))
    store.flush()
    assert sorted(store.logged()) == sorted(names)
