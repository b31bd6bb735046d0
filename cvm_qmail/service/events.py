"""The query of a request, its outcome, and the sinks that receive both.

Invariants: no protocol and no socket is known here.  A `Sink` gets every request once, after its response was made;
it never changes or delays an answer.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple, Protocol, runtime_checkable

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

    def repeat(self, token: Any, began: float) -> None:
        """A cached response was sent again, for a request that began at `began`.

        `token` is what `request` returned when the response was made.
        """
        ...


@runtime_checkable
class Writer(Sink, Protocol):
    """A sink that keeps what it receives for a moment, and has to be told when to write it."""

    def settle(self) -> None:
        """The response has been sent: there is time to write."""
        ...

    def flush(self) -> None:
        """Writes what is waiting: either a lookup that may hang comes next, or the worker is idle."""
        ...


class _Both:
    """Two sinks as one."""

    def __init__(self, one: Sink, other: Sink) -> None:
        request_one, request_other, repeat_one, repeat_other = one.request, other.request, one.repeat, other.repeat

        def repeat(token: Any, began: float) -> None:
            first, second = token
            repeat_one(first, began)
            repeat_other(second, began)

        self.request = lambda event: (request_one(event), request_other(event))
        self.repeat = repeat


class Sinks:
    """All sinks as one: a `Writer`.

    Functions that are made once, since a loop over the sinks of a request costs as much again as what they do.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        """The sinks are called in this order."""
        one = reduce(_Both, sinks) if sinks else _Nobody()
        writers = [sink for sink in sinks if isinstance(sink, Writer)]
        self.request: Callable[[Event], object] = one.request
        self.repeat: Callable[[Any, float], None] = one.repeat
        self.settle = _all(*(writer.settle for writer in writers))
        self.flush = _all(*(writer.flush for writer in writers))


class _Nobody:
    """Nobody watches."""

    def request(self, event: Event) -> None:
        """Nothing is noted."""

    def repeat(self, token: object, began: float) -> None:
        """Nothing is noted."""


def _all(*functions: Callable[[], None]) -> Callable[[], None]:
    """These functions, one after the other."""
    if len(functions) == 1:
        return functions[0]

    def call() -> None:
        for function in functions:
            function()

    return call
