"""cvm-gateway: the command.

Exit status: 0 stopped by a signal or a takeover; 1 wrong usage; 100 a setting is wrong; 111 something is missing or
denied for now.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from typing import NamedTuple

from cvm_qmail import __version__
from cvm_qmail.escape import escape_text
from cvm_qmail.exits import PERMANENT, TEMPORARY, Failure, complain, status_of
from cvm_qmail.exits import USAGE as USAGE_ERROR
from cvm_qmail.gateway import confinement, sockets
from cvm_qmail.gateway.listeners import FORMS, Listener, parse
from cvm_qmail.gateway.modules import CannotAsk
from cvm_qmail.gateway.router import Routed
from cvm_qmail.gateway.routes_file import BadRoutes, RoutesFile
from cvm_qmail.gateway.server import STOP, Server
from cvm_qmail.gateway.settings import SETTINGS, SHARED, Settings
from cvm_qmail.gateway.sockets import Bound, NotOurs, Ownership
from cvm_qmail.observe.log import Log
from cvm_qmail.process import sandbox
from cvm_qmail.process.inherited import hold_standard_descriptors, reset_signals
from cvm_qmail.protocols.routes import EXPECTED
from cvm_qmail.server.ownership import socket_owner
from cvm_qmail.settings import BadSetting


class Options(NamedTuple):
    """The arguments."""

    takeover: bool
    routes: str | None
    """A file."""
    listeners: list[str]


OTHER_DESCRIPTORS = 64
"""Descriptors in addition to those of clients and questions: listeners, log, the loop's own."""

USAGE = f"""\
usage: cvm-gateway [--takeover] [--routes FILE] LISTENER...
{FORMS}\
options: --routes FILE    a file with the modules for each domain, in place of CVM_GATEWAY_MODULE
         --takeover       replace a running gateway without refusing a connection
         --help-settings  list the environment variables
         --version, --help
"""


def main() -> int:
    """The command `cvm-gateway`; returns the exit status."""
    return status_of("cvm-gateway", lambda: _run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    if arguments == ["--help"]:
        print(USAGE, end="")
        return 0
    if arguments == ["--help-settings"]:
        for setting in (SETTINGS | SHARED).values():
            unit = f" ({setting.unit})" if setting.unit else ""
            print(f"{setting.name}\n    {setting.meaning}{unit}\n    default: {setting.default}")
        return 0
    if arguments == ["--version"]:
        print(f"cvm-gateway {__version__}")
        return 0
    options = _options(arguments)
    listeners = _listeners(options.listeners)
    settings = Settings.from_environment()
    routed = _routed(options.routes, settings)
    hold_standard_descriptors()
    reset_signals()
    _allow_descriptors(settings, 1 if routed is None else len(routed.routes.names))
    # A signal to stop before `Server.run` has its handlers must not leave a socket's path behind.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    bound = _bind(listeners, settings, takeover=options.takeover)
    try:
        _check_reach(bound, settings)
        log = Log(1, "text", time.monotonic, lambda _: 0)
        asyncio.run(_serve(settings, bound, log, routed))
    except BaseException:
        for made in bound:
            made.remove()
        raise
    log.line("Stopping.")
    log.finish()
    return 0


def _options(arguments: list[str]) -> Options:
    """The options may stand before or after the listeners.  Raises `Failure`."""
    takeover, routes = False, None
    listeners = []
    left = iter(arguments)
    for argument in left:
        if argument == "--takeover":
            takeover = True
        elif argument == "--routes":
            routes = next(left, None)
            if routes is None:
                raise _wrong_usage("--routes: expected a FILE")
        elif argument.startswith("-"):
            raise _wrong_usage(f"{argument}: no such option, or not together with others")
        else:
            listeners.append(argument)
    return Options(takeover, routes, listeners)


def _wrong_usage(what: str) -> Failure:
    return Failure(f"wrong usage: {escape_text(what)}\n{USAGE.rstrip()}", USAGE_ERROR)


def _routed(path: str | None, settings: Settings) -> Routed | None:
    """The routes of a file; None: there is one module.  Raises `Failure`."""
    if path is None:
        if settings.module is None:
            raise BadSetting("CVM_GATEWAY_MODULE", os.environ.get("CVM_GATEWAY_MODULE", ""), EXPECTED)
        return None
    if settings.module is not None:
        raise Failure(
            "both --routes and CVM_GATEWAY_MODULE are given: put the module into the routes as the default", USAGE_ERROR
        )
    file = RoutesFile(path)
    try:
        return Routed(file.read(), file)
    except BadRoutes as bad:
        raise Failure(str(bad), PERMANENT) from None


def _listeners(names: list[str]) -> list[Listener]:
    if not names:
        raise _wrong_usage("expected at least one LISTENER")
    try:
        listeners = [parse(name) for name in names]
    except ValueError as error:
        raise _wrong_usage(str(error)) from None
    if len(set(names)) < len(names):
        raise _wrong_usage("the same listener is named twice")
    spoken = {listener.protocol for listener in listeners}
    if spoken & {"http", "deliverable"} and find_spec("h11") is None:
        raise Failure("http and deliverable need the package h11: pip install 'cvm-qmail[gateway]'", PERMANENT)
    return listeners


def _allow_descriptors(settings: Settings, modules: int) -> None:
    """Raises the limit of open files as far as this process may; warns if that is not enough."""
    needed = settings.connections + settings.waiting * modules + OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
    if hard < needed:
        complain(
            f"cvm-gateway: warning: {hard} open files are allowed, and CVM_GATEWAY_CONNECTIONS and"
            f" CVM_GATEWAY_WAITING may need {needed}"
        )


def _check_reach(bound: list[Bound], settings: Settings) -> None:
    """Warns of listeners that other hosts can reach; requires a token for http."""
    for made in bound:
        if made.is_local:
            continue
        name = made.listener.name
        if made.listener.protocol == "http":
            if not settings.token:
                raise Failure(f"{name}: other hosts can reach it: CVM_GATEWAY_TOKEN is required", PERMANENT)
        else:
            complain(f"cvm-gateway: warning: {name}: other hosts can reach it, and anybody there may ask")


async def _serve(settings: Settings, bound: list[Bound], log: Log, routed: Routed | None) -> None:
    try:
        server = Server(settings, bound, log, routed)
    except CannotAsk as error:
        raise Failure(str(error), PERMANENT) from None
    _confine(settings, bound, routed)
    log.line("Starting.")
    await server.run()


def _confine(settings: Settings, bound: list[Bound], routed: Routed | None) -> None:
    """Enters the sandbox, with a warning about what it lacks.  Raises `Failure` if it is required but not possible."""
    routes = None if routed is None else routed.file.path
    missing_here = list(
        sandbox.lacking(confinement.network(settings, routes))
    )  # before it is entered: inside, the kernel cannot be tested
    try:
        confinement.enter(settings, bound, routes)
    except sandbox.Unconfined as missing:
        raise Failure(str(missing), PERMANENT) from None
    if settings.sandbox == "off":
        complain("cvm-gateway: warning: CVM_SANDBOX=off")
        return
    for lacking in missing_here:
        complain(f"cvm-gateway: warning: sandbox: {lacking}")


def _bind(listeners: list[Listener], settings: Settings, *, takeover: bool) -> list[Bound]:
    """The sockets of all listeners; if one fails, those that were bound are removed again."""
    try:
        passed = sockets.passed(listeners, os.environ)
    except ValueError as error:
        raise Failure(str(error), PERMANENT) from None
    if passed is not None:
        return passed
    ownership = Ownership(settings.socket_mode, *socket_owner(settings.socket_owner, settings.socket_group))
    bound: list[Bound] = []
    try:
        for listener in listeners:
            try:
                bound.append(sockets.bind(listener, ownership, takeover=takeover))
            except NotOurs as error:
                raise Failure(str(error), TEMPORARY) from None
            except OSError as error:
                raise Failure(f"{listener.name}: {error.strerror or error}", TEMPORARY) from None
            except UnicodeError:
                raise Failure(f"{listener.name}: not a host name", USAGE_ERROR) from None
    except BaseException:
        for made in bound:
            made.remove()
        raise
    return bound
