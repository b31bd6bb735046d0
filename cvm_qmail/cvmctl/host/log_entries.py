"""Lines of a server's log, in either format, after any time stamp of a supervisor.

    2026-11-26_10:00:00.00000 + joe@example.org joe mailbox /home/joe 85us
    {"result": "+", "code": 0, "account": "joe", ...}

A gateway's lines have its listener as the user, and the client as the place.

Invariants: a line that is not about a request is not an entry; nothing is guessed.  Fields stay escaped, as the log
has them.

Source: cvm_qmail.observe.log.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from cvm_qmail.answer import TEMPORARY_FAILURE, Verdict
from cvm_qmail.reasons import WORDS, Outcome

LIMIT = 65536
"""Bytes of a line that are read."""

_LINE = re.compile(
    r"(?:^|.*? )(?P<mark>[-+?]) (?P<address>\S+) (?P<user>\S+) (?P<reason>\S+) (?P<where>\S+) (?P<us>[0-9]+)us"
    r"(?: (?P<detail>.*))?$"
)


class Entry(NamedTuple):
    """A request, as the log has it."""

    outcome: str
    address: str
    user: str
    reason: str
    where: str
    microseconds: int
    detail: str

    @property
    def domain(self) -> str:
        """Of the address, in lower case; empty if it has none."""
        return self.address.rpartition("@")[2].lower() if "@" in self.address else ""


def parse(line: str) -> Entry | None:
    """The request in a line; None if the line is not about a request."""
    brace = line.find("{")
    if brace >= 0 and (entry := _of_json(line[brace:])):
        return entry  # else the brace is in an address of the other format
    found = _LINE.match(line)
    if found is None:
        return None
    mark, address, user, reason, where, us, detail = found.groups()
    return Entry(_outcome(mark, reason), address, user, reason, where, int(us), detail or "")


def _of_json(text: str) -> Entry | None:
    try:
        fields: dict[str, Any] = json.loads(text)
        mark, reason = str(fields["result"]), str(fields["reason"] or "-")
        user, where = (str(fields.get(name) or "-") for name in ("user", "where"))
        detail = str(fields.get("detail") or "")
        if "listener" in fields:  # the gateway's
            address, user, where = (str(fields[name] or "-") for name in ("address", "listener", "client"))
        else:
            account, domain = str(fields["account"]), fields["domain"]
            address = account if domain is None else f"{account}@{domain}"
        return Entry(_outcome(mark, reason), address, user, reason, where, int(fields["microseconds"]), detail)
    except (ValueError, KeyError, TypeError):
        return None


def _outcome(mark: str, reason: str) -> str:
    """``-`` stands for two outcomes, which the reason tells apart."""
    if mark == "+":
        return Verdict.ACCEPTED.word
    if mark == "?":
        return TEMPORARY_FAILURE
    outcomes = {row.outcome for row in WORDS.get(reason, ())}
    return Verdict.OUT_OF_SCOPE.word if outcomes == {Outcome.OUT_OF_SCOPE} else Verdict.REJECTED.word
