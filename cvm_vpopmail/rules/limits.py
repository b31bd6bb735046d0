"""Limits of a domain: what its accounts may not do, and how much they may store together.

    # .qmailadmin-limits of the domain, else etc/vlimits.default; only one of them is read
    disable_imap            its presence is enough: `disable_imap 0` disables it too
    quota: 100              megabytes
    maxmsgcount 10000       blanks, tabs and colons part name and value

In the SQL table `limits` the same are columns, where 0 means no, and the quota is called diskquota.

Invariants: a name is recognized only at the beginning of its line, in lower case; the last of two lines decides; 0
means no limit.  As in vpopmail, only the first 2,048 bytes are read (and of a longer file, only the lines that end
there), and nothing after a NUL.  Everything else is ignored: any text is valid.

Source: vlimits.c (vlimits_read_limits_file, vlimits_get_flag_mask), vmysql.c (vget_limits).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from cvm_vpopmail.accounts import Flag
from cvm_vpopmail.rules.numbers import strtol

_BUFFER = 2048
"""Bytes that vpopmail reads."""

_LINE = re.compile(rb"([^ \t:]+)(?:[ \t:]+(.*))?", re.DOTALL)


class Limits(NamedTuple):
    """The limits of a domain that are used here; 0: none."""

    flags: int = 0
    """The services that are forbidden to accounts without V_OVERRIDE, as `Flag`s."""
    diskquota: int = 0
    """Megabytes of all maildirs together."""
    maxmsgcount: int = 0
    """Messages in all maildirs together."""


_IN_FILE = {
    b"disable_pop": Flag.NO_POP,
    b"disable_imap": Flag.NO_IMAP,
    b"disable_smtp": Flag.NO_SMTP,
    b"disable_webmail": Flag.NO_WEBMAIL,
    b"disable_external_relay": Flag.NO_RELAY,
}

_IN_TABLE = {
    "disable_pop": Flag.NO_POP,
    "disable_imap": Flag.NO_IMAP,
    "disable_smtp": Flag.NO_SMTP,
    "disable_webmail": Flag.NO_WEBMAIL,
    "disable_relay": Flag.NO_RELAY,
}


def parse(text: bytes) -> Limits:
    """The limits in a file."""
    seen = text[:_BUFFER].partition(b"\0")[0]
    if len(text) >= _BUFFER:
        seen = seen[: max(seen.rfind(b"\n"), seen.rfind(b"\r")) + 1]
    flags, numbers = 0, {b"quota": 0, b"maxmsgcount": 0}
    for line in seen.splitlines():
        match = _LINE.match(line)
        if match is not None:
            name, value = match.groups()
            flags |= _IN_FILE.get(name, 0)
            if value is not None and name in numbers:
                numbers[name] = strtol(value)
    return Limits(int(flags), max(0, numbers[b"quota"]), max(0, numbers[b"maxmsgcount"]))


def from_row(row: Mapping[str, int | None]) -> Limits:
    """The limits in a row of the SQL table, by column; None (NULL) is 0."""
    flags = 0
    for column, flag in _IN_TABLE.items():
        if row.get(column):
            flags |= flag
    return Limits(int(flags), max(0, row.get("diskquota") or 0), max(0, row.get("maxmsgcount") or 0))
