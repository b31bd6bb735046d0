"""The modules of routes, asked as the gateway asks them.

Invariants: at most `AT_ONCE` questions are under way.  Each domain is asked for an address that need not exist: only
whether a module knows the domain matters.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

from cvm_qmail.answer import Recipient
from cvm_qmail.gateway.backend import PROBE, Backend
from cvm_qmail.gateway.modules import Modules
from cvm_qmail.gateway.settings import Settings
from cvm_qmail.gateway.turns import Turns
from cvm_qmail.protocols.result import Result
from cvm_qmail.protocols.routes import Routes
from cvm_qmail.reasons import Outcome

AT_ONCE = 50

ACCOUNT = b"postmaster"
"""Whom domains are asked for."""


class Answering(NamedTuple):
    """How a module is."""

    module: str
    seconds: float
    """Until its answer."""
    error: str
    """Why there was none; empty: there was one."""


class Found(NamedTuple):
    """What asking found."""

    modules: list[Answering]
    unknown: list[tuple[bytes, str]]
    """Domains, each with a module of its route that says it is not one of its own."""


def ask(routes: Routes, settings: Settings) -> Found:
    """Asks every module, and those that answer about every domain.  Raises `CannotAsk`."""
    return asyncio.run(_ask(routes, settings))


async def _ask(routes: Routes, settings: Settings) -> Found:
    turns = Turns()
    turns.start()
    modules = Modules(settings, turns)
    backends = {name: modules.backend(name) for name in routes.names}
    states = await asyncio.gather(*(_state(name, backend, turns) for name, backend in backends.items()))
    answering = {state.module for state in states if not state.error}
    pairs = [
        (domain, name)
        for domain, names in routes.modules.items()
        if domain and not domain.startswith(b".")
        for name in names
        if name in answering
    ]
    unknown = await _unknown(pairs, backends, turns)
    for backend in backends.values():
        backend.close()
    return Found(list(states), unknown)


async def _state(name: str, backend: Backend, turns: Turns) -> Answering:
    began = time.monotonic()
    result = await _result(backend, PROBE, turns)
    seconds = time.monotonic() - began
    return Answering(name, seconds, "" if backend.state.up else f"{result.reason}: {backend.state.detail}")


async def _unknown(
    pairs: Iterable[tuple[bytes, str]], backends: dict[str, Backend], turns: Turns
) -> list[tuple[bytes, str]]:
    room = asyncio.Semaphore(AT_ONCE)

    async def knows(domain: bytes, name: str) -> bool:
        async with room:
            result = await _result(backends[name], Recipient(ACCOUNT, domain), turns)
        return result.outcome is not Outcome.OUT_OF_SCOPE

    pairs = list(pairs)
    known = await asyncio.gather(*(knows(*pair) for pair in pairs))
    return [pair for pair, is_known in zip(pairs, known, strict=True) if not is_known]


async def _result(backend: Backend, recipient: Recipient, turns: Turns) -> Result:
    return await turns.value(partial(backend.ask, recipient, float("inf")))
