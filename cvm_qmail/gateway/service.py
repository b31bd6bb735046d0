"""From a question to its result, and the log and counters of it.

Invariants: never raises.  A rejection comes only from the module, or from a rule about an address that the module
accepted, so an address that is out of scope, or that could not be looked up, is never rejected.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from cvm_qmail.escape import escape, is_odd
from cvm_qmail.exits import describe_exception
from cvm_qmail.gateway.backend import PROBE, Answers, Done
from cvm_qmail.gateway.probe_limit import ProbeCounts, prober_of
from cvm_qmail.gateway.refused_messages import RefusedMessages
from cvm_qmail.gateway.settings import Settings
from cvm_qmail.gateway.statistics import Snapshot, Statistics
from cvm_qmail.gateway.turns import Turns
from cvm_qmail.protocols.question import Question, Stage
from cvm_qmail.protocols.result import Result, word
from cvm_qmail.reasons import Outcome, Rejection

MARKS = {Outcome.ACCEPTED: "+", Outcome.REJECTED: "-", Outcome.OUT_OF_SCOPE: "-", Outcome.TEMPORARY_FAILURE: "?"}
"""The first character of a log line."""

HEALTHY = 1.0
"""Seconds for which an answer of the module shows that it works."""

HEALTH_LIMIT = 2.0
"""Seconds for the module to show that it works: a health check does not wait long."""

ADDRESS_CUT, CUT = 500, 100
"""Bytes of an address, and of other fields, that a log line shows: escaped, it still fits into one write to a pipe."""

_NOT_CHECKED = Result(Outcome.ACCEPTED, "sender-not-checked")
_THROTTLED = Result(Outcome.TEMPORARY_FAILURE, "throttled")
_CHARACTERS = Result(Outcome.REJECTED, "rejected-characters", Rejection.BLOCKED)
_DENIED_LATER = Result(Outcome.ACCEPTED, "denied-at-data")
_MESSAGE_DENIED = Result(Outcome.REJECTED, "denied-at-data", Rejection.MISSING)
_INTERNAL_ERROR = Result(Outcome.TEMPORARY_FAILURE, "internal-error")
_MESSAGE_ACCEPTED = Result(Outcome.ACCEPTED)


class Service:
    """Answers questions, whatever protocol they came by."""

    def __init__(self, settings: Settings, backend: Answers, log: Callable[[str], None], turns: Turns) -> None:
        """`log` takes a line."""
        self._backend = backend
        self._turns = turns
        self._log = log
        self._logged = {
            "all": frozenset(Outcome),
            "rejected": frozenset((Outcome.REJECTED, Outcome.TEMPORARY_FAILURE)),
            "none": frozenset[Outcome](),
        }[settings.logged]
        self._line = json_line if settings.log == "json" else text_line
        self._senders = settings.senders
        self._reject_chars = settings.reject_chars
        self._deny_all = settings.deny_all
        self.probes = ProbeCounts(settings.probe_limit, time.monotonic)
        self.refused = RefusedMessages(time.monotonic)
        self.statistics = Statistics()
        self.connections: Callable[[], int] = lambda: 0
        """The number of clients, which the server knows."""

    async def answer(self, question: Question, listener: str) -> Result:
        """The same as `ask`, for coroutines."""
        return await self._turns.value(partial(self.ask, question, listener))

    def ask(self, question: Question, listener: str, done: Done, limit: float = float("inf")) -> None:
        """Calls `done` with the result, at once or later, within `limit` seconds (and CVM_GATEWAY_TIMEOUT)."""
        began = time.monotonic()
        if question.stage is Stage.MESSAGE and not self._denies(question):
            done(_MESSAGE_ACCEPTED)  # nothing was decided: it is neither counted nor logged
            return
        finish = partial(self._finish, question, listener, began, done)
        try:
            known = self._known(question)
        except Exception:  # noqa: BLE001  a fault of ours must not leave the client without an answer
            known = self._failed()
        if known is not None:
            finish(known)
        else:
            self._backend.ask(question.recipient, limit, partial(self._judge, question, finish))

    def _finish(self, question: Question, listener: str, began: float, done: Done, result: Result) -> None:
        """Counts, logs, and hands the result over."""
        seconds = time.monotonic() - began
        self.statistics.answered(listener, result, question.recipient.domain, seconds)
        if result.outcome in self._logged:
            self._log(self._line(listener, question, result, seconds))
        done(result)

    def _known(self, question: Question) -> Result | None:
        """The result, if the module need not be asked."""
        if question.stage is Stage.MESSAGE:
            return _MESSAGE_DENIED
        if self._senders and _covered(question.sender, self._senders):
            return _NOT_CHECKED
        return _THROTTLED if self.probes.throttles(question) else None

    def _judge(self, question: Question, finish: Done, result: Result) -> None:
        """The result that the gateway derives from the module's."""
        try:
            result = self._judged(question, result)
        except Exception:  # noqa: BLE001  a fault of ours must not leave the client without an answer
            result = self._failed()
        finish(result)

    def _judged(self, question: Question, result: Result) -> Result:
        if result.outcome is Outcome.ACCEPTED and self._has_rejected_characters(question.recipient.account):
            result = _CHARACTERS
        if result.outcome is not Outcome.REJECTED:
            return result
        if result.rejection is Rejection.MISSING:
            self.probes.missing(question)
        if self._deny_all and question.message is not None:
            self.refused.add(question.message)
            return _DENIED_LATER
        return result

    def _failed(self) -> Result:
        """The one place for unexpected exceptions: never a guess, never a dead server."""
        self._log(f"? internal error: {describe_exception()}")
        return _INTERNAL_ERROR

    def _has_rejected_characters(self, account: bytes) -> bool:
        return bool(self._reject_chars) and not set(self._reject_chars).isdisjoint(account)

    def _denies(self, question: Question) -> bool:
        """Whether a recipient of this message did not exist."""
        return question.message is not None and question.message in self.refused

    async def error(self) -> str:
        """Why no module answers; empty: one has answered within the last `HEALTHY` seconds."""
        if not self._backend.well(HEALTHY):
            result = await self._turns.value(partial(self._backend.ask, PROBE, HEALTH_LIMIT))
            if not self._backend.well(HEALTHY):
                return result.reason or "backend-down"
        return ""

    def snapshot(self) -> Snapshot:
        """The gateway's counters and state."""
        return self.statistics.snapshot(self._backend.states(), self.probes.throttled(), self.connections())


def _covered(sender: bytes | None, senders: frozenset[bytes]) -> bool:
    """Whether a sender is in the list: its address, its domain (``@example.org``), or ``<>`` for the null sender."""
    if sender is None:
        return False
    if not sender:
        return b"<>" in senders
    sender = sender.lower()
    _, at, domain = sender.rpartition(b"@")
    return sender in senders or (bool(at) and at + domain in senders)


def text_line(listener: str, question: Question, result: Result, seconds: float) -> str:
    """``+ joe@example.org socketmap mailbox 192.0.2.7 310us``: ``-`` for an empty field."""
    address = question.recipient.address[:ADDRESS_CUT]
    who = (prober_of(question) or b"")[:CUT]
    reason = result.reason or "-"
    if not reason.isascii() or is_odd(b"%s%s%s" % (address, who, reason.encode())):
        reason = escape(reason.encode("ascii", "backslashreplace"))
        address, who = escape(address).encode(), escape(who).encode()
    shown = f"{address.decode() or '-'} {listener} {reason} {who.decode() or '-'}"
    return f"{MARKS[result.outcome]} {shown} {int(seconds * 1e6)}us"


def json_line(listener: str, question: Question, result: Result, seconds: float) -> str:
    """The same as one JSON object."""
    import json

    return json.dumps(
        {
            "result": MARKS[result.outcome],
            "outcome": word(result.outcome),
            "address": escape(question.recipient.address[:ADDRESS_CUT]),
            "listener": listener,
            "reason": result.reason or None,
            "class": result.rejection.value if result.rejection else None,
            "client": escape((question.client or b"")[:CUT]) or None,
            "sender": None if question.sender is None else escape(question.sender[:CUT]),
            "microseconds": int(seconds * 1e6),
        }
    )
