"""How the response of another module differs from this server's, in words.

Pure.  The order of facts does not matter, and this server's own fact, the reason, is not compared.
"""

from __future__ import annotations

from collections.abc import Iterable

from cvm_qmail.answer import DRY_RUN
from cvm_qmail.protocols.cvm import packets
from cvm_qmail.protocols.cvm.packets import Code, Fact
from cvm_qmail.service.events import Event

SHOWN = 80
"""Characters of a fact in the log."""

_REJECTED = packets.Response(Code.PERMFAIL, b"", ((int(Fact.OUTOFSCOPE), b"0"),))
"""A rejection, as it is without CVM_DRY_RUN."""


def without_dry_run(event: Event) -> packets.Response:
    """This server's response, as it would be without CVM_DRY_RUN."""
    ours = packets.parse_response(event.response, event.request[0])
    ours = ours._replace(facts=tuple((number, value) for number, value in ours.facts if number != Fact.REASON))
    return _REJECTED._replace(nonce=ours.nonce) if event.outcome.detail == DRY_RUN else ours


def difference(ours: packets.Response, theirs: packets.Response) -> str:
    """The differences in words; empty: none.  The order of facts does not matter."""
    if ours.nonce != theirs.nonce:
        return "there another nonce"
    here, there = _by_name(ours.facts), _by_name(theirs.facts)
    scope = Fact.OUTOFSCOPE.name
    if (ours.code, here.get(scope)) != (theirs.code, there.get(scope)):
        return f"here {_outcome(ours.code, here.get(scope))}, there {_outcome(theirs.code, there.get(scope))}"
    names = [name for name in here | there if here.get(name) != there.get(name)]
    return "; ".join(f"{name} here {_shown(here.get(name))}, there {_shown(there.get(name))}" for name in names)


def _by_name(facts: Iterable[tuple[int, bytes]]) -> dict[str, list[bytes]]:
    named: dict[str, list[bytes]] = {}
    for number, value in facts:
        name = Fact(number).name if number in Fact.__members__.values() else f"fact {number}"
        named.setdefault(name, []).append(value)
    return named


def _outcome(code: int, scope: list[bytes] | None) -> str:
    return f"{code}" if scope is None else f"{code} out of scope {_shown(scope)}"


def _shown(values: list[bytes] | None) -> str:
    if values is None:
        return "none"
    text = " ".join(value.decode("utf-8", "surrogateescape") for value in values)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
