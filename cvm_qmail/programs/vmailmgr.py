"""vdeliver [-DdFfRr] [--no-predeliver] [--no-postdeliver] [--quiet]: delivers to the virtual users of vmailmgr.

    passwd.cdb                the virtual users of the domain's owner, by what follows the dash, in lower case
    ~/.vmailmgr/NAME          settings, a file each, else /etc/vmailmgr/NAME
      password-file           the table, without .cdb   (passwd)
      default-username        the user for names that are not in the table  (+)

    no such user, no default one, or expired     100
    a maildir without tmp or new                 111
    no mailbox or a disabled one, no forwards    0: the mail is thrown away

Invariants: where vdeliver bounces because it cannot read its table or a record, that is a temporary failure: an
error does not mean that the user does not exist.  A script vdeliver-predeliver or vdeliver-postdeliver decides by
itself, so a user that exists is accepted there.  Quotas are the kernel's or such a script's, and are not checked.

Source: vmailmgr's commands/vdeliver.cc, lib/config, lib/misc/exec.cc, lib/vpwtable.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from stat import S_ISDIR
from typing import NamedTuple

from cvm_qmail.plugin import Delivery, FileAccess, Ran, Rights, Table, Tables, Unavailable
from cvm_qmail.programs.options import BadUsage, options
from cvm_qmail.programs.vmailmgr_config import Configuration, Policy
from cvm_qmail.programs.vmailmgr_record import NEVER, Entry, parse

PASSWORD_FILE = b"passwd"
DEFAULT_USER = b"+"

_LONG = (b"--no-predeliver", b"--no-postdeliver", b"--quiet", b"--help")
_USAGE = Ran(1, detail="wrong usage")
"""The result of wrong usage: unlike qmail's programs it does not bounce, and mail waits."""


class _Usage(NamedTuple):
    predeliver: bool
    postdeliver: bool


class Virtual(NamedTuple):
    """A table's entry for a name."""

    entry: Entry | None
    """None: its record cannot be read."""
    name: bytes
    """The key that was found."""


class Vdeliver:
    """The rule for vdeliver, with the settings of this check: a `plugins.ProgramRule`."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def __call__(self, arguments: Sequence[bytes], delivery: Delivery, tables: Tables) -> Ran:
        """The result of vdeliver.  Raises `Unavailable` where it defers, or bounces because of an error."""
        try:
            usage = _usage(arguments)
        except BadUsage:
            return _USAGE
        if usage is None:
            return Ran(0)
        rights = Rights(delivery.user.uid, delivery.user.gid)

        def judge(files: FileAccess) -> Ran:
            configuration = Configuration(self._policy, delivery, tables, files)
            return self._judge(usage, delivery, tables, files, configuration)

        return tables.as_user(rights, delivery.user.home, judge)

    def _judge(
        self, usage: _Usage, delivery: Delivery, tables: Tables, files: FileAccess, configuration: Configuration
    ) -> Ran:
        path = delivery.path(configuration.text(b"password-file", PASSWORD_FILE) + b".cdb")
        table = files.cdb(path, secret=True)
        if table is None:
            raise Unavailable("no-table", "No such file or directory", path)
        name = delivery.ext.lower()
        found = virtual_user(name, configuration.text(b"default-username", DEFAULT_USER), table)
        tables.traced("vmailmgr", {name: found}).get(name)  # for a trace
        if found is None:
            return Ran(100, "no-virtual-user", path)
        if found.entry is None:
            raise Unavailable("virtual-user-damaged", f"the record of {found.name!r} is not one of vmailmgr's", path)
        entry = found.entry
        if _expired(entry, tables):
            return Ran(100, "virtual-user-expired", path)
        if usage.predeliver and configuration.has_script(b"vdeliver-predeliver"):
            return Ran(None, "vdeliver", path)
        if entry.delivers:
            _check_maildir(delivery.path(entry.directory), files)
        if usage.postdeliver and configuration.has_script(b"vdeliver-postdeliver"):
            return Ran(None, "vdeliver", path)
        if entry.delivers or entry.forwards:
            return Ran(0, "vdeliver", path, forwards=None if entry.delivers else _forwards(entry, delivery))
        if self._policy.locked == "reject":
            return Ran(100, "virtual-user-locked", path)
        return Ran(0, "vdeliver-discards", path)


def _usage(arguments: Sequence[bytes]) -> _Usage | None:
    """The settings of the options; None: only help was requested.  Raises `BadUsage`."""
    long = [argument for argument in arguments if argument in _LONG]
    given, rest = options([argument for argument in arguments if argument not in _LONG], b"DdFfRrh")
    if rest:
        raise BadUsage
    if b"h" in given or b"--help" in long:
        return None
    return _Usage(b"--no-predeliver" not in long, b"--no-postdeliver" not in long)


def virtual_user(name: bytes, default: bytes, table: Table[bytes, bytes]) -> Virtual | None:
    """The user of this name, else the default user; None: neither is there.

    vdeliver treats a record that it cannot read as missing.  Here it causes a temporary failure if the default
    user does not accept the mail.
    """
    damaged: Virtual | None = None
    for key in (name, default.lower()):
        data = table.get(key) if key else None
        if data is None:
            continue
        entry = parse(data)
        if entry is not None and (damaged is None or not _is_past(entry)):
            return Virtual(entry, key)
        damaged = damaged or Virtual(None, key)
    return damaged


def _is_past(entry: Entry) -> bool:
    return entry.expiry != NEVER and entry.expiry < time.time()


def _expired(entry: Entry, tables: Tables) -> bool:
    """Whether a user has expired; if it will later, the answer is valid until then."""
    if entry.expiry == NEVER:
        return False
    left = entry.expiry - time.time()
    if left >= 0:
        tables.current.valid_until(tables.current.began + left)
    return left < 0


def _check_maildir(maildir: bytes, files: FileAccess) -> None:
    """Raises `Unavailable` unless vdeliver would treat it as a maildir."""
    for part in (b"tmp", b"new"):
        path = b"%s/%s" % (maildir, part)
        status = files.status(path)
        if status is None or not S_ISDIR(status.mode):
            raise Unavailable("no-maildir", "No such directory", path)


def _forwards(entry: Entry, delivery: Delivery) -> tuple[bytes, ...] | None:
    """The addresses that mail is forwarded to; None: one of them is at the host of control/me."""
    if any(address.endswith(b"@") and address.find(b"@") == len(address) - 1 for address in entry.forwards):
        return None
    return tuple(address if b"@" in address else b"%s@%s" % (address, delivery.host) for address in entry.forwards)
