"""Warnings at start: settings and accounts with which the server will not do what was intended."""

from __future__ import annotations

import os
from collections.abc import Iterator

from cvm_qmail.answer import Unavailable
from cvm_qmail.plugin import Module
from cvm_qmail.process import sandbox
from cvm_qmail.settings import Settings
from cvm_qmail.tables import passwd
from cvm_qmail.tables.door import Tables
from cvm_qmail.tables.rights import Switch


def advise(settings: Settings, dropped: bool, module: Module) -> Iterator[str]:
    """Warnings for the administrator, one line each.

    `dropped`: whether supplementary groups could be dropped.
    """
    if settings.dry_run:
        yield "CVM_DRY_RUN is set: nothing is rejected; what would be rejected is logged"
    if settings.lookup_secret is None and module.authenticate is None:
        yield "CVM_LOOKUP_SECRET is not set: every address that exists is answered 6 (set it, even empty, to look up)"
    if module.reads_host:
        yield from _host(settings, dropped)
    if settings.sandbox == "off":
        yield "CVM_SANDBOX=off: a process that is taken over may do whatever its user may"
    else:
        for missing in sandbox.lacking(module.network | passwd.network(settings.passwd)):
            yield f"sandbox: {missing}"
    if not os.geteuid():
        needs = "with CAP_SETUID, CAP_SETGID and CAP_DAC_READ_SEARCH" if module.reads_host else "without any capability"
        yield f"running as root: a user of its own {needs} is enough"


def _host(settings: Settings, dropped: bool) -> Iterator[str]:
    """What it should know of the host that is looked at."""
    root = os.fsdecode(settings.qmail_root)
    tables = Tables(settings)
    if not os.path.isdir(settings.qmail_root + b"/control"):
        yield f"QMAIL_ROOT: {root} has no directory control: every address is a temporary failure until it has one"
    else:
        try:
            tables.controls()
        except Unavailable as error:
            where = os.fsdecode(error.where)
            yield f"{where}: {error.detail}: every address is a temporary failure, as qmail would not start"
    if Switch().may:
        try:
            accounts = tables.accounts()
            for name in (b"qmailp", b"qmails"):
                if accounts.get(name) is None:
                    yield f"there is no account {name.decode()}: using the rights of this process instead"
        except Unavailable as error:
            yield f"{os.fsdecode(error.where)}: {error.detail}: no local address can be judged"
    else:
        needs = "needs root, or CAP_SETUID and CAP_SETGID"
        yield f"not privileged ({needs}): judging other users' files by owner and mode bits only"
        if not dropped:
            yield "cannot drop supplementary groups: their rights apply to files that this process reads as itself"
