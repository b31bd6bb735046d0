"""cvm-qmail: the command.

Exit status: of a server, 0 when it was told to stop; 1 wrong usage; 100 a setting is wrong; 111
something is missing or refused for now.  Without an argument, the response code.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NoReturn, TypeVar

from cvm_qmail import __version__
from cvm_qmail.settings import BadSetting, Settings

if TYPE_CHECKING:
    import socket

    from cvm_qmail.lookups import ModuleFactory
    from cvm_qmail.responder import Pardon
    from cvm_qmail.serve import Door
    from cvm_qmail.shadow import Shadow
    from cvm_qmail.tables import Tables

T = TypeVar("T")

USAGE = """\
usage: {program} cvm-local:/path/to/socket
or:    {program} cvm-udp:hostname:port
or:    {program}                            (request on standard input)
option: --takeover    take the socket's path over from a server that is running
        --version, --help
"""

USAGE_STATUS = 1
PERMANENT = 100
TEMPORARY = 111


class Failure(Exception):
    """The program cannot go on: a message, and the exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def main() -> int:
    """The command `cvm-qmail`."""
    if len(sys.argv) == 1:
        gc.disable()  # command mode: it ends before there is anything to collect
    from cvm_qmail.lookups import qmail

    return run("cvm-qmail", qmail, sys.argv[1:])


def run(program: str, factory: ModuleFactory, arguments: list[str]) -> int:
    """Runs the module that `factory` makes as `arguments` say; the exit status."""
    try:
        return _run(program, factory, arguments)
    except BadSetting as bad:
        message, status = str(bad), PERMANENT
    except Failure as failure:
        message, status = str(failure), failure.status
    except OSError as error:
        message, status = str(error), TEMPORARY
    except KeyboardInterrupt:
        message, status = "interrupted", TEMPORARY
    print(f"{program}: {message}", file=sys.stderr)
    return status


def _run(program: str, factory: ModuleFactory, arguments: list[str]) -> int:
    takeover = "--takeover" in arguments
    arguments = [argument for argument in arguments if argument != "--takeover"]
    if not arguments and not takeover:
        _command(factory, Settings.from_environment())
    if arguments == ["--help"]:
        print(USAGE.format(program=program), end="")
        return 0
    if arguments == ["--version"]:
        print(f"{program} {__version__}")
        return 0
    scheme, _, address = arguments[0].partition(":") if len(arguments) == 1 else ("", "", "")
    if scheme not in _SCHEMES or not address:
        given = " ".join(arguments).encode("unicode_escape", "backslashreplace").decode("ascii")
        raise Failure(f"wrong usage: found {given!r}, expected:\n" + USAGE.format(program=program), USAGE_STATUS)
    _hold_standard_descriptors()
    return _SCHEMES[scheme](program, factory, Settings.from_environment(), address, takeover)


def _command(factory: ModuleFactory, settings: Settings) -> NoReturn:
    from cvm_qmail import wire
    from cvm_qmail.log import as_text, unforeseen
    from cvm_qmail.lookups import asking
    from cvm_qmail.responder import Event, responder
    from cvm_qmail.tables import Tables
    from cvm_qmail.transports import command

    def report(event: Event) -> None:
        if event.mark == "?" or event.detail:  # standard output is the client's; this belongs in its log all the same
            print(as_text(event, time.monotonic() - event.began), file=sys.stderr, flush=True)

    def late(request: bytes, died: bool) -> bytes:
        what = "died" if died else f"took longer than {settings.lookup_timeout:g} seconds"
        print(f"? the look-up {what}", file=sys.stderr)
        return wire.refusal(request, wire.Code.IO)

    request = command.read_request()
    tables = Tables(settings, lasting=False)
    respond = responder(
        asking(factory(tables, settings), settings.lookup_secret),
        secret=settings.lookup_secret,
        report=report,
        clock=time.monotonic,
        unforeseen=unforeseen,
        pardon=_pardon(tables, settings),
    )
    status = command.run(request, respond, late, settings.lookup_timeout)
    sys.stderr.flush()
    os._exit(status)  # the interpreter's own farewell takes a tenth of the whole time


def _serve_local(program: str, factory: ModuleFactory, settings: Settings, address: str, takeover: bool) -> int:
    import socket

    from cvm_qmail.serve import Door
    from cvm_qmail.transports import local

    path = os.fsencode(address)
    owner, group = _owner(settings)
    activated = _activated(socket.SOCK_STREAM)
    if activated is not None:
        return _serve(program, factory, settings, address, lambda: Door(activated, None, None))
    if len(path) > local.PATH_LIMIT:
        raise Failure(f"{address}: {len(path)} bytes, expected at most {local.PATH_LIMIT}", PERMANENT)
    try:
        local.check_kind(path)
        if not takeover:
            local.check_free(path)
    except local.NotASocket as other:
        raise Failure(str(other), TEMPORARY) from None
    except local.InUse as in_use:
        raise Failure(f"{in_use} (--takeover replaces it)", TEMPORARY) from None

    def bind() -> Door:
        listener, inode = local.listen(path, settings.socket_mode, owner, group)
        return Door(listener, path, inode)

    return _serve(program, factory, settings, address, bind)


def _serve_udp(program: str, factory: ModuleFactory, settings: Settings, address: str, takeover: bool) -> int:
    import ipaddress
    import socket

    from cvm_qmail.serve import Door
    from cvm_qmail.transports import udp

    try:
        host, port = udp.split(address)
    except ValueError as error:
        raise Failure(f"{error}\n" + USAGE.format(program=program), USAGE_STATUS) from None
    if takeover:
        raise Failure("--takeover: only a Unix socket's path can be taken over", USAGE_STATUS)
    bound = _activated(socket.SOCK_DGRAM)
    if bound is None:
        bound = _named(address, lambda: udp.bind(host, port))
    if not settings.lookup_secret and not ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback:
        _warn(program, f"listening on {address}, beyond this host, without a secret: anybody there may ask")
    return _serve(program, factory, settings, address, lambda: Door(bound, None, None))


_SCHEMES = {"cvm-local": _serve_local, "cvm-udp": _serve_udp}


def _named(address: str, bind: Callable[[], T]) -> T:
    """What `bind` gives; a failure with the address, which the error of bind(2) does not tell."""
    try:
        return bind()
    except OSError as error:
        raise Failure(f"{address}: {error.strerror or error}", TEMPORARY) from None
    except UnicodeError:
        raise Failure(f"{address}: not the name of a host", USAGE_STATUS) from None


def _serve(program: str, factory: ModuleFactory, settings: Settings, address: str, bind: Callable[[], Door]) -> int:
    from cvm_qmail.log import Log
    from cvm_qmail.lookups import asking
    from cvm_qmail.recent import Recent
    from cvm_qmail.responder import Ask
    from cvm_qmail.serve import Supervisor, clock
    from cvm_qmail.tables import Hazards, Tables, rights

    def service(settings: Settings, hazards: Hazards) -> tuple[Ask, Recent | None, Pardon | None]:
        tables = Tables(settings, hazards=hazards)
        module = factory(tables, settings)
        keeps = module.repeatable and settings.lookup_secret is not None
        recent = Recent(tables) if keeps else None
        return asking(module, settings.lookup_secret), recent, _pardon(tables, settings)

    module = factory(Tables(settings), settings)  # what is wrong with a plug-in or its settings is said now
    log = Log(1, settings.log, clock)
    shadow = _shadow(settings, address)
    door = _named(address, bind)
    dropped = rights.drop_groups()
    for assumption in module.assumptions:
        print(f"{program}: {assumption}", file=sys.stderr, flush=True)
    _advise(program, settings, dropped, module.authenticate is not None)
    return Supervisor(settings, service, door, bind, log, shadow=shadow).run()


def _pardon(tables: Tables, settings: Settings) -> Pardon | None:
    if not settings.dry_run:
        return None
    from cvm_qmail.dry_run import pardoner

    return pardoner(tables, settings)


def _shadow(settings: Settings, address: str) -> Shadow | None:
    if settings.shadow is None:
        return None
    from cvm_qmail.serve import clock
    from cvm_qmail.shadow import Shadow, check

    check(settings.shadow, address)
    return Shadow(settings.shadow, settings.lookup_timeout, settings.log, clock)


def _activated(kind: socket.SocketKind) -> socket.socket | None:
    """The socket that the service manager passed (sd_listen_fds(3)); None if it passed none."""
    import socket

    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not (count := os.environ.get("LISTEN_FDS")):
        return None
    if count != "1":
        raise Failure(f"LISTEN_FDS: found {count!r}, expected 1", PERMANENT)
    passed = socket.socket(fileno=3)
    if passed.type != kind:
        raise Failure(f"LISTEN_FDS: found a socket of type {passed.type}, expected {kind}", PERMANENT)
    passed.setblocking(False)
    os.set_inheritable(3, False)
    return passed


def _owner(settings: Settings) -> tuple[int, int]:
    """Uid and gid for the socket; -1: leave."""
    uid = gid = -1
    if settings.socket_owner is not None:
        uid, gid = _user(settings.socket_owner)
    if settings.socket_group is not None:
        gid = _group(settings.socket_group)
    return uid, gid


def _user(text: str) -> tuple[int, int]:
    import pwd

    if text.isdecimal():
        return _id("CVM_SOCKET_OWNER", text, "the name of a user, or a uid"), -1
    try:
        entry = pwd.getpwnam(text)
    except KeyError:
        raise BadSetting("CVM_SOCKET_OWNER", text, "the name of a user, or a uid") from None
    return entry.pw_uid, entry.pw_gid


def _group(text: str) -> int:
    import grp

    if text.isdecimal():
        return _id("CVM_SOCKET_GROUP", text, "the name of a group, or a gid")
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise BadSetting("CVM_SOCKET_GROUP", text, "the name of a group, or a gid") from None


def _id(name: str, digits: str, expected: str) -> int:
    """A number that chown(2) takes for an id: the last one means "leave" there."""
    number = int(digits[:12])
    if number >= 2**32 - 1:
        raise BadSetting(name, digits, expected)
    return number


def _hold_standard_descriptors() -> None:
    """A descriptor that was closed for us must not come back as a socket that we log to."""
    while (fd := os.open("/dev/null", os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def _warn(program: str, text: str) -> None:
    print(f"{program}: warning: {text}", file=sys.stderr, flush=True)


def _advise(program: str, settings: Settings, dropped: bool, authenticates: bool) -> None:
    """Says what the administrator should know, apart: a folder on a dead server must not keep us from serving."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        if os.fork():  # so that it is no child of ours, to be told from workers
            os._exit(0)
        for advice in advise(settings, dropped, authenticates):
            _warn(program, advice)
    finally:
        os._exit(0)


def advise(settings: Settings, dropped: bool, authenticates: bool) -> Iterator[str]:
    """What an administrator should know at start.

    `dropped`: whether supplementary groups could be left.  `authenticates`: whether the module can.
    """
    from cvm_qmail.answer import Unavailable
    from cvm_qmail.tables import Tables
    from cvm_qmail.tables.rights import Switch

    root = os.fsdecode(settings.qmail_root)
    if settings.dry_run:
        yield "CVM_DRY_RUN is set: nothing is refused; what would be is logged"
    if settings.lookup_secret is None and not authenticates:
        yield "CVM_LOOKUP_SECRET is not set: every address that exists is answered 6 (set it, even empty, to look up)"
    tables = Tables(settings)
    if not os.path.isdir(settings.qmail_root + b"/control"):
        yield f"QMAIL_ROOT: {root} has no folder control: every address is answered 4 until it has"
    else:
        try:
            tables.controls()
        except Unavailable as trouble:
            where = os.fsdecode(trouble.where)
            yield f"{where}: {trouble.detail}: every address is answered 4, as qmail would not start"
    if Switch().may:
        try:
            accounts = tables.accounts()
            for name in (b"qmailp", b"qmails"):
                if accounts.get(name) is None:
                    yield f"there is no account {name.decode()}: judging with this process's own rights in its stead"
        except Unavailable as trouble:
            yield f"{os.fsdecode(trouble.where)}: {trouble.detail}: no local address can be judged"
    else:
        yield "this process may not look with other users' rights: judging by owner and mode bits"
        if not dropped:
            yield "this process may not leave its supplementary groups: they count where it looks itself"
