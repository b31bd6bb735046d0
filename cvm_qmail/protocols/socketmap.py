"""Postfix's socketmap, which Exim can speak as well.

    21:rcpt joe@example.org,        4:OK 1,
    23:rcpt gone@example.org,       9:NOTFOUND ,

A netstring each: decimal length (leading zeros are taken), colon, bytes, comma.  A request is the map's name, a blank,
and the key: the rest, which may be empty or hold blanks.  Any name is accepted.  Many requests may come on one
connection, and are answered in their order.

Postfix sends the quoted form of an address, which is unquoted; Exim's bare form has no quote at its beginning.

Invariants: ``OK`` never without a text, which Postfix would treat as not found.  A temporary failure is ``TEMP``:
Postfix answers 451 to that, to ``PERM`` and to any word that it does not know.

Source: Postfix socketmap_table(5); Postfix 3.7.11 (dict_sockmap.c, netstring.c).
"""

from __future__ import annotations

from collections.abc import Callable

from cvm_qmail.protocols.address import recipient, unquoted
from cvm_qmail.protocols.question import Immediate, Malformed, Question
from cvm_qmail.protocols.result import Result, smtp_reply
from cvm_qmail.reasons import Outcome

LIMIT = 32768
"""Bytes of a request: Postfix was seen to send 12,010, and accepts 100,000 itself."""

_DIGITS = 9
"""Digits of a length, with its leading zeros."""

_NO_KEY = b"PERM expected the name of a map, a blank and an address"

_FOUND = b"OK 1"
_NOT_FOUND = b"NOTFOUND "


def _temporary(result: Result) -> bytes:
    """The text is for Postfix's log only."""
    text = smtp_reply(result).text + (f" ({result.reason})" if result.reason else "")
    return b"TEMP " + text.encode("ascii", "backslashreplace")


PAYLOADS: dict[Outcome, Callable[[Result], bytes]] = {
    Outcome.ACCEPTED: lambda _result: _FOUND,
    Outcome.REJECTED: lambda _result: _NOT_FOUND,
    Outcome.OUT_OF_SCOPE: lambda _result: _NOT_FOUND,
    Outcome.TEMPORARY_FAILURE: _temporary,
}
"""The answer for each of the four outcomes.  `Socketmap` can have another one for out of scope."""

OUT_OF_SCOPE: dict[str, Callable[[Result], bytes]] = {
    "notfound": PAYLOADS[Outcome.OUT_OF_SCOPE],
    "ok": PAYLOADS[Outcome.ACCEPTED],
    "temporary": lambda result: b"TEMP not a domain of the qmail host (%s)" % result.reason.encode("ascii", "replace"),
}
"""Other answers for out of scope.

Postfix asks a map of recipients (relay_recipient_maps) only about its own domains, where "not found" rejects the
recipient; in an access map it means no opinion.
"""


class Socketmap:
    """One connection: bytes in, questions out, in their order."""

    def __init__(self, out_of_scope: str = "notfound") -> None:
        self._buffer = bytearray()
        self._payloads = PAYLOADS | {Outcome.OUT_OF_SCOPE: OUT_OF_SCOPE[out_of_scope]}

    def receive(self, data: bytes) -> None:
        """Takes bytes from the client."""
        self._buffer += data

    @property
    def buffered(self) -> int:
        """The number of bytes that are not yet parsed."""
        return len(self._buffer)

    def next_request(self) -> Question | Immediate | None:
        """The next request; None: it is not complete yet.  Raises `Malformed`."""
        payload = self._netstring()
        if payload is None:
            return None
        name, blank, key = payload.partition(b" ")
        if not (name and blank):
            return Immediate(netstring(_NO_KEY), malformed=True)
        return Question(recipient(unquoted(key.lower())))

    def reply(self, _question: Question, result: Result) -> bytes:
        """The bytes of an answer."""
        return netstring(self._payloads[result.outcome](result))

    def _netstring(self) -> bytes | None:
        buffer = self._buffer
        if not buffer:
            return None
        colon = buffer.find(b":", 0, _DIGITS + 1)
        digits = buffer[: colon if colon >= 0 else _DIGITS + 1]
        if (digits and not digits.isdigit()) or (colon < 0 and len(digits) > _DIGITS) or colon == 0:
            raise Malformed("not a netstring")
        if colon < 0:
            return None
        size = int(digits)
        if size > LIMIT:
            raise Malformed(f"netstring of {size} bytes, expected at most {LIMIT}")
        end = colon + 1 + size
        if len(buffer) <= end:
            return None
        if buffer[end] != 0x2C:
            raise Malformed("netstring without its comma")
        payload = bytes(buffer[colon + 1 : end])
        del buffer[: end + 1]
        return payload


def netstring(payload: bytes) -> bytes:
    """The netstring of `payload`."""
    return b"%d:%s," % (len(payload), payload)
