"""fastforward [-nNpPdD] TABLE: forwards a message by a constant database that setforward made.

    :user@host  :@host  :user@      the target in lower case: its commands, each ended by NUL
      &ADDRESS                      forwards to it; looked up again as a target, without the wildcards
      ./LIST  /LIST                 a binary list of setmaillist: the same, without programs
      |COMMAND  !COMMAND            a program
    ?user@host ...                  the owner, to whom bounces go

Invariants: found is 0, not found 100; with -p 99 and 0.  A table or list that cannot be read is a
temporary failure.  A target from which a program can be reached is accepted, since its status is not known without a
run.  A loop ends where it returns; at most `STEPS` targets and lists are read.

Source: fastforward(1), setforward(1), setmaillist(1) of fastforward 0.51; checked against the running program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from stat import S_ISDIR, S_ISREG
from typing import NamedTuple

from cvm_qmail.plugin import STOP, Database, Delivery, FileAccess, Ran, Rights, Table, Tables, Unavailable
from cvm_qmail.programs.options import USAGE, BadUsage, options, switched_on

STEPS = 10_000
"""The number of targets and lists that are read for one address."""

WORLD_READABLE = 0o004


class Handled(NamedTuple):
    """The contents of a target."""

    found: bool
    """Whether there are instructions."""
    forwards: tuple[bytes, ...] = ()
    """The addresses that mail for it is forwarded to."""


class Places(NamedTuple):
    """Where fastforward looks: its table, and the lists that the table names."""

    table: Table[bytes, bytes]
    read: Callable[[bytes], bytes | None]
    """The content of a list; None if it is not followed.  Raises `Unavailable` for one that cannot be read."""
    sound: bool = False
    """Whether the table is certainly undamaged: else a search for an owner may reach a damaged part, and defer."""


def program(arguments: Sequence[bytes], delivery: Delivery, tables: Tables) -> Ran:
    """What fastforward would exit with.  Raises `Unavailable` where it defers."""
    try:
        given, rest = options(arguments, b"nNpPdD")
    except BadUsage:
        return USAGE
    if not rest:
        return USAGE
    rights, home = Rights(delivery.user.uid, delivery.user.gid), delivery.user.home
    path = delivery.path(rest[0])
    table = tables.user_cdb(rights, home, path)
    if table is None:
        raise Unavailable("no-table", "No such file or directory", path)

    def read(name: bytes) -> bytes | None:
        return tables.as_user(rights, home, lambda files: _list(delivery.path(name), files))

    sound = isinstance(table, Database) and table.sound
    found = handles(recipient(delivery, default=switched_on(given, b"d", b"D")), Places(table, read, sound))
    if found is None:
        return Ran(None, "fastforward", path)
    through = switched_on(given, b"p", b"P")
    if not found.found:
        return Ran(0) if through else Ran(100, "no-target", path)
    return Ran(STOP if through else 0, "fastforward", path, forwards=found.forwards)


def recipient(delivery: Delivery, *, default: bool) -> bytes:
    """The address that is looked up, in lower case."""
    local = delivery.local
    if default:
        local = delivery.ext if delivery.default is None else delivery.default
    return b"%s@%s" % (local.lower(), delivery.host.lower())


def handles(target: bytes, places: Places) -> Handled | None:
    """The contents of the target; None if the result is not known without a run.

    Raises `Unavailable` where fastforward defers.
    """
    if not places.sound:
        _found(b"?", target, places.table)
    first = _found(b":", target, places.table)
    if first is None:
        return Handled(found=False)
    forwards: list[bytes] = []
    first_error: Unavailable | None = None
    todo, seen = list(_commands(first)), {b"&" + target}
    steps = 0
    while todo:
        command = todo.pop()
        key = command.lower() if command.startswith(b"&") else command
        if command[:1] in (b"|", b"!"):
            return None
        if key in seen or command[:1] not in (b"&", b".", b"/"):
            continue
        seen.add(key)
        steps += 1
        if steps > STEPS:
            return None
        try:
            if command.startswith(b"&"):
                if not places.sound:
                    places.table.get(b"?" + key[1:])
                nested = places.table.get(b":" + key[1:])
                if nested is None:
                    forwards.append(command[1:])
                else:
                    todo += _commands(nested)
            else:
                content = places.read(command)
                if content is None:
                    return None
                todo += (item for item in _commands(content) if item[:1] in (b"&", b".", b"/"))
        except Unavailable as error:
            first_error = first_error or error
    if first_error is not None:
        raise first_error
    return Handled(True, tuple(forwards))


def _found(prefix: bytes, target: bytes, table: Table[bytes, bytes]) -> bytes | None:
    """The record of a target, with the wildcards."""
    user, _, host = target.rpartition(b"@")
    for key in (target, b"@" + host, user + b"@"):
        value = table.get(prefix + key)
        if value is not None:
            return value
    return None


def _commands(value: bytes) -> Iterator[bytes]:
    """The strings that end with a NUL; the rest is ignored."""
    return (command for command in value.split(b"\0")[:-1] if command)


def _list(path: bytes, files: FileAccess) -> bytes | None:
    status = files.status(path)
    if status is None:
        raise Unavailable("no-list", "No such file or directory", path)
    if S_ISDIR(status.mode):
        raise Unavailable("no-list", "Is a directory", path)
    if not S_ISREG(status.mode):
        return None
    if not status.mode & WORLD_READABLE:
        raise Unavailable("list-not-public", f"has mode {status.mode & 0o7777:04o}, must be readable for others", path)
    return files.file(path)
