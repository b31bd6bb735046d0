"""vpopmail's domains: users/cdb as vpopmail reads it, and the default domain.

Source: vpopmail.c (vget_assign, vset_default_domain).
"""

from __future__ import annotations

from cvm_qmail.answer import Unavailable
from cvm_qmail.tables.door import Tables
from cvm_vpopmail.accounts import Domain


class Domains:
    """users/cdb as vpopmail reads it: a Table of domains by name in lower case."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def get(self, name: bytes, /) -> Domain | None:
        """The domain; None if vpopmail does not know it.  Raises `Unavailable`."""
        cdb = self._tables.users_cdb() if name else None
        data = None if cdb is None else cdb.get(b"!%s-" % name)
        if data is None:
            if cdb is not None and cdb.get(b"") is None:  # no qmail-newu made it: zeros, say, after a crash
                raise Unavailable("cdb-no-break-list", "users/cdb has no record with an empty key", b"users/cdb")
            return None
        fields = data.split(b"\0")
        if len(fields) < 4 or not fields[1].isdigit() or not fields[2].isdigit() or not fields[3].startswith(b"/"):
            raise Unavailable("domain-record", f"users/cdb: the record of {name!r} is no domain's", b"users/cdb")
        return Domain(fields[0], int(fields[1][:10]), int(fields[2][:10]), fields[3])


class DefaultDomain:
    """The first line of ``etc/defaultdomain``."""

    def __init__(self, tables: Tables, directory: bytes) -> None:
        self._tables = tables
        self._path = directory + b"/etc/defaultdomain"

    def __call__(self) -> bytes:
        """The domain in lower case; empty if there is none.  Raises `Unavailable`."""
        text = self._tables.file(self._path) or b""
        return text.partition(b"\n")[0].strip(b" \t\r").lower()
