"""What qmail-send says: exactly the facts that were recorded beside its logs."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hosts import CORPUS, as_bytes, load
from hypothesis import given
from hypothesis import strategies as st

from cvm_qmail.cvmctl.audit.logfiles import LogFiles
from cvm_qmail.cvmctl.audit.sendlog import Delivery, Event, Message, Outcome, SendLog
from cvm_qmail.cvmctl.host.timestamps import Line
from cvm_qmail.reasons import Rejection

LOGS = CORPUS / "logs"
FORMS = sorted(path for path in LOGS.iterdir() if path.suffix not in (".json", ".md"))
OUTCOMES = {"success": Outcome.SUCCESS, "deferral": Outcome.DEFERRAL, "unfinished": Outcome.UNFINISHED}

NO_MAILBOX = b"Sorry,_no_mailbox_here_by_that_name._(#5.1.1)/"


def follow(*texts: str) -> tuple[list[Event], SendLog]:
    log = SendLog()
    return list(log.follow(Line(None, text.encode()) for text in texts)), log


def delivery(row: dict[str, Any]) -> tuple[object, ...]:
    """A delivery as it was recorded."""
    return (
        row["run"],
        row["delivery"],
        row["msg"],
        row["channel"] == "local",
        as_bytes(row["recipient_logged"]),
        row["bytes"],
        OUTCOMES.get(row["outcome"], Outcome.FAILURE),
        as_bytes(row.get("text") or ""),
        row["channel"] == "local" and "no_mailbox_here_by_that_name" in (row.get("text") or "") and failed(row),
    )


def failed(row: dict[str, Any]) -> bool:
    return OUTCOMES.get(row["outcome"], Outcome.FAILURE) is Outcome.FAILURE


def message(row: dict[str, Any]) -> tuple[object, ...]:
    """A message as it was recorded."""
    sender = as_bytes(row["sender_logged"])
    return row["msg"], row["bytes"], sender, row["qp"], row["uid"], row.get("bounce_qp") or 0, "end_line" in row


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_every_delivery_and_message_is_as_recorded(path: Any) -> None:
    facts = load(LOGS / f"{path.name.split('.')[0]}.json")
    files, log = LogFiles([os.fsencode(path)]), SendLog()
    events = list(log.follow(files.read()))
    deliveries = [(*event[:8], event.bounce is Rejection.MISSING) for event in events if isinstance(event, Delivery)]
    messages = [
        (event.number, event.size, event.sender, event.qp, event.uid, event.bounce_qp or 0, event.ended)
        for event in events
        if isinstance(event, Message)
    ]
    assert sorted(deliveries) == sorted(map(delivery, facts["deliveries"]))
    assert sorted(messages) == sorted(map(message, facts["messages"]))
    assert (log.not_understood, log.began_before, files.foreign, files.damaged) == (0, 0, 0, [])


def test_the_corpus_is_all_there() -> None:
    assert len(FORMS) == 38


def test_a_message_number_is_used_again() -> None:
    events, _ = follow(
        "new msg 7",
        "info msg 7: bytes 100 from <a@x> qp 1 uid 2",
        "starting delivery 1: msg 7 to local joe@x",
        f"delivery 1: failure: {NO_MAILBOX.decode()}",
        "end msg 7",
        "new msg 7",
        "info msg 7: bytes 200 from <b> qp 5 uid 6> qp 3 uid 4",
        "starting delivery 2: msg 7 to local ann@x",
        "delivery 2: success: did_1+0+0/",
    )
    assert [event.size for event in events] == [100, 100, 200, 200]
    ended, queued = (event for event in events if isinstance(event, Message))
    assert (ended.ended, ended.failed) == (True, (b"joe@x",))
    assert (queued.ended, queued.failed, queued.sender) == (False, (), b"b> qp 5 uid 6")


def test_what_was_under_way_at_a_restart_has_no_end() -> None:
    for restart in ("status: local 0/10 remote 0/20", "starting delivery 1: msg 8 to remote x@far"):
        events, _ = follow("starting delivery 1: msg 7 to local joe@x", restart, "delivery 9: success: ")
        assert isinstance(events[0], Delivery)
        assert (events[0].recipient, events[0].outcome) == (b"joe@x", Outcome.UNFINISHED)


def test_a_deferral_does_not_settle_a_message_but_another_recipient_does() -> None:
    begin = (
        "new msg 7",
        "info msg 7: bytes 1 from <> qp 1 uid 2",
        "starting delivery 1: msg 7 to local a@x",
        "delivery 1: deferral: later/",
        "starting delivery 2: msg 7 to local a@x",
        f"delivery 2: failure: {NO_MAILBOX.decode()}",
    )
    other = ("starting delivery 3: msg 7 to remote b@x", f"delivery 3: failure: {NO_MAILBOX.decode()}")
    only, _ = follow(*begin, "end msg 7")
    mixed, _ = follow(*begin, *other, "end msg 7")
    assert [event.failed for event in (*only, *mixed) if isinstance(event, Message)] == [(b"a@x",), ()]
    assert [event.bounce is Rejection.MISSING for event in mixed if isinstance(event, Delivery)] == [False, True, False]


def test_deliveries_that_began_before_the_log_are_counted() -> None:
    events, log = follow("delivery 5: success: did_1+0+0/", "end msg 7", "bounce msg 7 qp 8")
    assert (events, log.began_before, log.not_understood) == ([], 1, 0)


def test_what_is_not_understood_is_counted_and_some_of_it_kept() -> None:
    events, log = follow("new msg seven", "", "delivery", "starting delivery 1: msg 2 to nowhere x", *["nonsense"] * 9)
    assert (events, log.not_understood, len(log.examples)) == ([], 13, 5)


def test_errors_are_counted() -> None:
    _, log = follow("alert: cannot start: qmail-send is already running", "warning: unable to stat x")
    assert (log.warnings, log.not_understood) == (2, 0)


NUMBER = st.integers(0, 5)
LINES = st.one_of(
    NUMBER.map("new msg {}".format),
    NUMBER.map("info msg {}: bytes 9 from <> qp 1 uid 2".format),
    st.tuples(NUMBER, NUMBER).map(lambda two: "starting delivery {}: msg {} to local a@x".format(*two)),
    st.tuples(NUMBER, st.sampled_from(["success", "failure", "deferral"])).map(
        lambda two: "delivery {}: {}: ".format(*two)
    ),
    NUMBER.map("end msg {}".format),
    st.just("status: local 0/1 remote 0/1"),
    st.text(max_size=20),
)


@given(st.lists(LINES))
def test_every_delivery_that_starts_is_reported_once(lines: list[str]) -> None:
    events, _ = follow(*lines)
    started = sum(line.startswith("starting") for line in lines)
    assert sum(isinstance(event, Delivery) for event in events) == started
