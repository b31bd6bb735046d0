"""cvm-qmail: the command.

Exit status of a server: 0 stopped by a signal or a takeover; 1 wrong usage; 100 a setting is wrong; 111 something is
missing or denied for now.  Without an argument, the response code.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn, TypeVar

from cvm_qmail import __version__
from cvm_qmail.exits import PERMANENT, TEMPORARY, Failure, complain, status_of
from cvm_qmail.exits import USAGE as USAGE_ERROR
from cvm_qmail.settings import Settings

if TYPE_CHECKING:
    from cvm_qmail.observe.log import Log
    from cvm_qmail.observe.shadow import Shadow
    from cvm_qmail.plugin import Module, ModuleFactory
    from cvm_qmail.server.supervisor import Listener
    from cvm_qmail.service.events import Sink

T = TypeVar("T")

USAGE = """\
usage: {program} cvm-local:/path/to/socket
or:    {program} cvm-udp:hostname:port
or:    {program}                            (request on standard input)
options: --takeover       replace a running server without refusing a connection
         --help-settings  list the environment variables
         --version, --help
"""


def main() -> int:
    """The command `cvm-qmail`."""
    gc.disable()  # a tenth of the start otherwise; a server enables it, and nothing else lives long enough
    from cvm_qmail.qmail import qmail

    return run("cvm-qmail", qmail, sys.argv[1:])


def run(program: str, factory: ModuleFactory, arguments: list[str]) -> int:
    """Runs the module that `factory` makes, as `arguments` say; returns the exit status."""
    return status_of(program, lambda: _run(program, factory, arguments))


def _run(program: str, factory: ModuleFactory, arguments: list[str]) -> int:
    given, takeover = arguments, "--takeover" in arguments
    arguments = [argument for argument in arguments if argument != "--takeover"]
    if not arguments and not takeover:
        _command(factory, Settings.from_environment())
    if arguments == ["--help"]:
        print(USAGE.format(program=program), end="")
        return 0
    if arguments == ["--help-settings"]:
        _print_settings()
        return 0
    if arguments == ["--version"]:
        print(f"{program} {__version__}")
        return 0
    scheme, _, address = arguments[0].partition(":") if len(arguments) == 1 else ("", "", "")
    if scheme not in _SCHEMES or not address:
        found = " ".join(given).encode("unicode_escape", "backslashreplace").decode("ascii")
        raise Failure(f"wrong usage: found {found!r}, expected:\n{USAGE.format(program=program)}".rstrip(), USAGE_ERROR)
    from cvm_qmail.process.inherited import hold_standard_descriptors, reset_signals

    hold_standard_descriptors()
    reset_signals()
    return _SCHEMES[scheme](program, factory, Settings.from_environment(), address, takeover)


def _print_settings() -> None:
    """Every environment variable that this installation reads."""
    from cvm_qmail.entry_points import all_settings

    for owner, declared in all_settings().items():
        print(f"# {owner}")
        for setting in declared.values():
            unit = f" ({setting.unit})" if setting.unit else ""
            print(f"{setting.name}\n    {setting.meaning}{unit}\n    default: {setting.default}")


def _command(factory: ModuleFactory, settings: Settings) -> NoReturn:
    """Command mode: one request on standard input."""
    from cvm_qmail import pipeline
    from cvm_qmail.observe.failures import Failures
    from cvm_qmail.protocols.cvm.responder import REQUEST_LIMIT, temporary
    from cvm_qmail.tables.door import Tables
    from cvm_qmail.transports import stdio

    def late(request: bytes, died: bool) -> bytes:
        what = "died" if died else f"took longer than {settings.lookup_timeout:g} seconds"
        complain(f"? the lookup {what}")
        return temporary(request)

    if sys.stderr is None:  # closed: no file or socket of the lookup may get its number
        from cvm_qmail.process.inherited import hold_standard_descriptors

        hold_standard_descriptors()
    request = stdio.read_request(REQUEST_LIMIT)
    tables = Tables(settings, lasting=False)
    respond = pipeline.make_responder(tables, factory(tables, settings), settings, [Failures()])
    status = stdio.run(request, respond, late, settings.lookup_timeout)
    os._exit(status)  # skips the interpreter's own clean-up, a tenth of the whole time


def _serve_local(program: str, factory: ModuleFactory, settings: Settings, address: str, takeover: bool) -> int:
    import socket

    from cvm_qmail.protocols.cvm.responder import PROBE
    from cvm_qmail.server.supervisor import Listener
    from cvm_qmail.transports import unix_socket
    from cvm_qmail.transports.activation import activated

    path = os.fsencode(address)
    from cvm_qmail.server.ownership import socket_owner

    owner, group = socket_owner(settings.socket_owner, settings.socket_group)
    passed = activated(socket.SOCK_STREAM)
    if passed is not None:
        return _serve(program, factory, settings, address, lambda: Listener(passed, None, None))
    if len(path) > unix_socket.PATH_LIMIT:
        raise Failure(f"{address}: {len(path)} bytes, expected at most {unix_socket.PATH_LIMIT}", PERMANENT)
    try:
        unix_socket.check_kind(path)
        if not takeover:
            unix_socket.check_free(path, PROBE)
    except unix_socket.NotASocket as other:
        raise Failure(str(other), TEMPORARY) from None
    except unix_socket.InUse as in_use:
        raise Failure(f"{in_use} (--takeover replaces it)", TEMPORARY) from None

    def bind() -> Listener:
        listener, inode = unix_socket.listen(path, settings.socket_mode, owner, group)
        return Listener(listener, path, inode)

    return _serve(program, factory, settings, address, bind)


def _serve_udp(program: str, factory: ModuleFactory, settings: Settings, address: str, takeover: bool) -> int:
    import ipaddress
    import socket

    from cvm_qmail.server.supervisor import Listener
    from cvm_qmail.transports import datagram
    from cvm_qmail.transports.activation import activated

    try:
        host, port = datagram.split(address)
    except ValueError as error:
        raise Failure(f"{error}\n{USAGE.format(program=program)}".rstrip(), USAGE_ERROR) from None
    if takeover:
        raise Failure("--takeover: only a Unix socket's path can be taken over", USAGE_ERROR)
    bound = activated(socket.SOCK_DGRAM)
    if bound is None:
        bound = _named(address, lambda: datagram.bind(host, port))
    if not settings.lookup_secret and not ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback:
        _warn(program, f"listening on {address}, reachable from other hosts, without a secret: anyone there may ask")
    return _serve(program, factory, settings, address, lambda: Listener(bound, None, None))


_SCHEMES = {"cvm-local": _serve_local, "cvm-udp": _serve_udp}


def _named(address: str, bind: Callable[[], T]) -> T:
    """Returns what `bind` returns; raises a `Failure` that names the address, which the error of bind(2) does not."""
    try:
        return bind()
    except OSError as error:
        raise Failure(f"{address}: {error.strerror or error}", TEMPORARY) from None
    except UnicodeError:
        raise Failure(f"{address}: not a host name", USAGE_ERROR) from None


def _serve(program: str, factory: ModuleFactory, settings: Settings, address: str, bind: Callable[[], Listener]) -> int:
    from cvm_qmail import pipeline
    from cvm_qmail.observe.log import Log
    from cvm_qmail.protocols.cvm.responder import REQUEST_LIMIT, code_of, temporary
    from cvm_qmail.server.counting import open_stats
    from cvm_qmail.server.supervisor import Supervisor
    from cvm_qmail.server.worker import Prepared
    from cvm_qmail.server.workers import clock
    from cvm_qmail.tables import passwd, rights
    from cvm_qmail.tables.backends import Backends
    from cvm_qmail.tables.door import HangGuard, Tables

    def make_respond(hang_guard: HangGuard, backends: Backends, sinks: Sequence[Sink]) -> Prepared:
        tables = Tables(settings, hang_guard=hang_guard, backends=backends)
        module = factory(tables, settings)
        network = module.network | passwd.network(settings.passwd)
        return Prepared(pipeline.make_responder(tables, module, settings, sinks), network)

    def make_log() -> Log:
        return Log(1, settings.log, clock, code_of)

    module = factory(Tables(settings), settings)  # an error in a plug-in or its settings is reported now
    shadow = _shadow(settings, address, make_log)
    _check_sandbox(settings, shadow)
    listener = _named(address, bind)
    stats = open_stats(program, settings, address, lambda text: _warn(program, text))
    dropped = rights.drop_groups()
    for assumption in module.assumptions:
        complain(f"{program}: {assumption}")
    _advise(program, settings, dropped, module, listener)
    return Supervisor(
        settings,
        listener,
        bind,
        make_respond=make_respond,
        temporary=temporary,
        limit=REQUEST_LIMIT,
        make_log=make_log,
        shadow=shadow,
        stats=stats,
    ).run()


def _shadow(settings: Settings, address: str, make_log: Callable[[], Log]) -> Shadow | None:
    if settings.shadow is None:
        return None
    from cvm_qmail.observe.shadow import Shadow, check
    from cvm_qmail.server.workers import clock

    check(settings.shadow, address)
    looks_up = settings.lookup_secret is not None
    return Shadow(
        settings.shadow,
        settings.lookup_timeout,
        looks_up=looks_up,
        confinement=settings.sandbox,
        make_log=make_log,
        clock=clock,
    )


def _check_sandbox(settings: Settings, shadow: Shadow | None) -> None:
    """Raises `Failure` if the sandbox is required but not possible."""
    from cvm_qmail.process import sandbox

    if settings.sandbox == "required" and shadow is not None and shadow.runs_a_program:
        raise Failure("CVM_SANDBOX=required, but CVM_SHADOW runs a program, which no sandbox allows", PERMANENT)
    sandbox.check(settings.sandbox)


def _warn(program: str, text: str) -> None:
    complain(f"{program}: warning: {text}")


def _advise(program: str, settings: Settings, dropped: bool, module: Module, listener: Listener) -> None:
    """Prints warnings, in a child: a directory on a dead file server must not block the start."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    from cvm_qmail.server.advice import advise

    try:
        if os.fork():  # not a child of the supervisor, which expects only workers
            os._exit(0)
        listener.socket.close()  # if this process hangs, the next server must be able to bind
        for advice in advise(settings, dropped, module):
            _warn(program, advice)
    finally:
        os._exit(0)
