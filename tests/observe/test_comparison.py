"""What differs between two responses, in words."""

from __future__ import annotations

import pytest
from events import event

from cvm_qmail.answer import DRY_RUN
from cvm_qmail.observe.comparison import difference, without_dry_run
from cvm_qmail.protocols.cvm import packets


def response(code: int = 0, *facts: tuple[int, bytes], nonce: bytes = b"") -> packets.Response:
    return packets.Response(code, nonce, facts)


JOE = ((1, b"joe"), (2, b"5001"), (14, b"example.org"))
REFUSED, REMOTE = response(100, (16, b"0")), response(100, (16, b"1"))


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (response(0, *JOE), response(0, *reversed(JOE)), ""),
        (REFUSED, REFUSED, ""),
        (REFUSED, response(0, *JOE), "here 100 out of scope 0, there 0"),
        (REFUSED, REMOTE, "here 100 out of scope 0, there 100 out of scope 1"),
        (response(4), response(100), "here 4, there 100"),
        (response(0, *JOE), response(0, *JOE[:2], (14, b".org")), "DOMAIN here example.org, there .org"),
        (response(0, *JOE), response(0, *JOE[1:]), "USERNAME here joe, there none"),
        (response(0, (8, b"1"), (8, b"2")), response(0, (8, b"1")), "SUPP_GROUPID here 1 2, there 1"),
        (response(0, *JOE), response(0, *JOE, (200, b"x")), "fact 200 here none, there x"),
        (response(4, nonce=b"a"), response(4, nonce=b"b"), "there another nonce"),
        (response(0, (5, b"/" * 100)), response(0), f"DIRECTORY here {'/' * 80}..., there none"),
    ],
)
def test_a_difference_is_described_in_words(ours: packets.Response, theirs: packets.Response, said: str) -> None:
    assert difference(ours, theirs) == said


def test_in_a_dry_run_it_is_the_rejection_that_is_compared() -> None:
    acceptance = packets.pack_response(2, b"", 0, JOE)
    for detail, compared in (("", response(0, *JOE)), (DRY_RUN, REFUSED)):
        assert without_dry_run(event("+", detail=detail, request=b"\2\0\0", response=acceptance)) == compared
