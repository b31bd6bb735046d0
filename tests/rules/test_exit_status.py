"""What the exit status of a program means."""

from __future__ import annotations

import pytest

from cvm_qmail.answer import Answer, Unavailable, Verdict
from cvm_qmail.rules.exit_status import BOUNCES, Ran, answer, may_defer


@pytest.mark.parametrize("status", range(256))
def test_a_status_ends_a_delivery_or_defers_it(status: int) -> None:
    if status in {0, 99} or status in BOUNCES:
        may_defer(Ran(status))
    else:
        with pytest.raises(Unavailable, match="program-defers"):
            may_defer(Ran(status))


def test_a_deferral_names_its_reason_and_file() -> None:
    with pytest.raises(Unavailable) as caught:
        may_defer(Ran(127, "program-missing", b"/bin/x"))
    assert (caught.value.reason, caught.value.where) == ("program-missing", b"/bin/x")


@pytest.mark.parametrize(
    ("ran", "expected"),
    [
        (None, None),
        (Ran(None), None),
        (Ran(None, "fastforward", b"/t"), Answer(Verdict.ACCEPTED, "fastforward", where=b"/t")),
        (Ran(0, "fastforward", b"/t"), Answer(Verdict.ACCEPTED, "fastforward", where=b"/t")),
        (Ran(99), Answer(Verdict.ACCEPTED, "program")),
        (Ran(100), Answer(Verdict.REJECTED, "program-bounces")),
        (Ran(100, "no-target", b"/t"), Answer(Verdict.REJECTED, "no-target", where=b"/t")),
    ],
)
def test_the_answer_that_rests_on_a_program(ran: Ran | None, expected: Answer | None) -> None:
    assert answer(ran) == expected
