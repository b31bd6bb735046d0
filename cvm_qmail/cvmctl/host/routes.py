"""A gateway's routes: whether every domain has one, and whether the modules know it, asked as the gateway asks them.

Invariants: at most `AT_ONCE` questions are under way.  Each domain is asked for an address that need not exist: only
whether a module knows the domain matters.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

from cvm_qmail.answer import Recipient
from cvm_qmail.cvmctl.host.files import Line
from cvm_qmail.cvmctl.host.findings import Finding
from cvm_qmail.cvmctl.ui.output import PERMANENT, Failure, text
from cvm_qmail.gateway.backend import PROBE, Backend
from cvm_qmail.gateway.modules import CannotAsk, Modules
from cvm_qmail.gateway.routes_file import BadRoutes, RoutesFile
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
    reason: str
    """Why there was none; empty: there was one."""
    detail: str

    @property
    def error(self) -> str:
        """Why there was no answer, in words; empty: there was one."""
        return f"{self.reason}: {self.detail}" if self.reason else ""


class Found(NamedTuple):
    """What asking found."""

    modules: list[Answering]
    unknown: list[tuple[bytes, str]]
    """Domains, each with a module of its route that says it is not one of its own."""


def read(file: str) -> Routes:
    """The routes in a file.  Raises `Failure`."""
    try:
        return RoutesFile(file).read()
    except BadRoutes as bad:
        raise Failure(str(bad), PERMANENT) from None


def without_route(routes: Routes, lines: Iterable[Line]) -> Iterator[Finding]:
    """Domains in rcpthosts about which no module is asked."""
    for line in lines:
        domain = b"".join(line.value.lower().partition(b"#")[0].split()[:1])  # a map of another program has more words
        if domain and not routes.of(domain):
            yield Finding(
                "route-missing",
                line.file,
                line.number,
                f"{text(domain)} has no route",
                "every address of it is out of scope",
                f"add {text(domain)}:MODULE, or a default, to the routes",
            )


def unknown_domains(file: str, found: Found) -> Iterator[Finding]:
    """Routes to modules that do not know the domain."""
    for domain, module in found.unknown:
        yield Finding(
            "route-unknown",
            os.fsencode(file),
            None,
            f"{module} says that {text(domain)} is not one of its domains",
            "its addresses are out of scope, unless another module of the route knows them",
            "correct the route, or add the domain to locals or virtualdomains there",
        )


def ask(routes: Routes) -> Found:
    """Asks every module, and those that answer about every domain, with the gateway's settings.

    Raises `Failure`, `BadSetting`.
    """
    try:
        return asyncio.run(_ask(routes, Settings.from_environment()))
    except CannotAsk as error:
        raise Failure(str(error), PERMANENT) from None


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
    if backend.state.up:
        return Answering(name, seconds, "", "")
    return Answering(name, seconds, result.reason or "backend-down", backend.state.detail)


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
