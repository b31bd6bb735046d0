"""A gateway's routes beside this host's control files, and what its modules say of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from cvm_qmail.answer import Unavailable
from cvm_qmail.cvmctl.host import routes as host_routes
from cvm_qmail.cvmctl.host.findings import Finding
from cvm_qmail.cvmctl.lint.context import LintContext, Rule
from cvm_qmail.protocols.routes import Routes


class RoutesCheck(NamedTuple):
    """A file of routes."""

    file: str
    routes: Routes

    @classmethod
    def of(cls, file: str) -> RoutesCheck:
        """Raises `Failure`."""
        return cls(file, host_routes.read(file))

    @property
    def rule(self) -> Rule:
        """The rule that finds domains without a route."""
        return partial(_without_route, self.routes)

    def asked(self) -> tuple[list[Finding], list[Unavailable]]:
        """What the modules do not know, and which of them do not answer.  Raises `Failure`, `BadSetting`."""
        found = host_routes.ask(self.routes)
        silent = [
            Unavailable(state.reason, state.detail, os.fsencode(state.module))
            for state in found.modules
            if state.reason
        ]
        return list(host_routes.unknown_domains(self.file, found)), silent


def _without_route(routes: Routes, context: LintContext) -> Iterator[Finding]:
    for name in ("rcpthosts", "morercpthosts"):
        yield from host_routes.without_route(routes, context.lines(name))
