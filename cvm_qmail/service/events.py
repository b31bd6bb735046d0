"""The query of a request, its outcome, and the sinks that receive both.

Invariants: no protocol and no socket is known here.  A `Sink` gets every request once, after its response was made;
it never changes or delays an answer.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple, Protocol

from cvm_qmail.answer import Outcome, Recipient
from cvm_qmail.plugin import Proof


class Query(NamedTuple):
    """An address, and for a login its proof."""

    recipient: Recipient
    proof: Proof | None = None
    from_shadow: bool = False
    """Whether another server's shadow process asks: it is answered, but not passed on to this server's shadow."""


NO_QUERY = Query(Recipient(b"", None))
"""The query of a request that could not be parsed."""


class Event(NamedTuple):
    """A request and its outcome."""

    query: Query
    outcome: Outcome
    began: float
    """When the request began: seconds of the pipeline's clock."""
    request: bytes = b""
    """The request's bytes."""
    response: bytes = b""
    """The response's bytes."""


class Sink(Protocol):
    """Receives requests: the log, counters, the shadow."""

    def request(self, event: Event) -> object:
        """Receives a request.  Returns a token for `repeat`."""
        ...

    def repeat(self, token: object, began: float) -> None:
        """A cached response was sent again, for a request that began at `began`.

        `token` is what `request` returned when the response was made.
        """
        ...

    def settle(self) -> None:
        """The response has been sent: there is time to write."""
        ...

    def flush(self) -> None:
        """Writes what is waiting: either a lookup that may hang comes next, or the worker is idle."""
        ...


class Pair:
    """Two sinks as one.  A loop over any number of them would cost as much again as what they do."""

    __slots__ = ("_first", "_second")

    def __init__(self, first: Sink, second: Sink) -> None:
        self._first = first
        self._second = second

    def request(self, event: Event) -> object:
        """Returns the tokens of both."""
        return self._first.request(event), self._second.request(event)

    def repeat(self, token: Any, began: float) -> None:
        """`token`: the tokens of both."""
        self._first.repeat(token[0], began)
        self._second.repeat(token[1], began)

    def settle(self) -> None:
        """See `Sink`."""
        self._first.settle()
        self._second.settle()

    def flush(self) -> None:
        """See `Sink`."""
        self._first.flush()
        self._second.flush()


class _Nobody:
    """Nobody watches."""

    def request(self, event: Event) -> object:
        """Nothing is noted."""

    def repeat(self, token: object, began: float) -> None:
        """Nothing is noted."""

    def settle(self) -> None:
        """Nothing waits."""

    def flush(self) -> None:
        """Nothing waits."""


def as_one(sinks: Sequence[Sink]) -> Sink:
    """One sink for all of them, which are asked in this order."""
    return reduce(Pair, sinks) if sinks else _Nobody()
