"""Connections of many requests: what a codec makes of bytes that come in pieces."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import strategies as st

from cvm_qmail.answer import Recipient
from cvm_qmail.protocols.policy import Policy
from cvm_qmail.protocols.question import Immediate, Malformed, Question
from cvm_qmail.protocols.socketmap import Socketmap

ANY = Question(Recipient(b"joe", b"ours.test"))

Said = list[Question | Immediate | str]


def said(codec: Socketmap | Policy, pieces: Iterable[bytes]) -> Said:
    """The requests of a connection; a string at the end: it is malformed."""
    found: Said = []
    try:
        for piece in pieces:
            codec.receive(piece)
            while (request := codec.next_request()) is not None:
                found.append(request)
    except Malformed as bad:
        found.append(str(bad))
    return found


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """The same bytes in pieces."""
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


PIECES = st.lists(st.integers(0, 10_000), max_size=8)
