"""The names that exist in a vpopmail domain, for `cvmctl list` and its lint rules.

Invariants: nothing here decides; no hash and no password leaves this module.  Names are read one by one: there may be
a million.

Source: vcdb.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from cvm_qmail.answer import Unavailable
from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.host.verdicts import or_none
from cvm_qmail.cvmctl.listing.entries import Candidate
from cvm_qmail.rules.users import User
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Rights, Tables
from cvm_vpopmail.dialects import Dialect
from cvm_vpopmail.rules.records import is_domain
from cvm_vpopmail.settings import Vpopmail
from cvm_vpopmail.tables import sql


def names(tables: Tables, settings: Settings, user: User) -> Iterator[Candidate] | None:
    """The accounts and aliases of a domain; None: it is not vpopmail's.  The iterator raises `Unavailable`."""
    return _names(tables, settings, user) if is_domain(user) else None


def _names(tables: Tables, settings: Settings, user: User) -> Iterator[Candidate]:
    policy = Vpopmail.from_settings(settings)
    for name in filter(None, _known(tables, settings, user, policy)):
        yield Candidate(name, False)
        if policy.qmail_ext or policy.tmda:
            yield Candidate(name + b"-", True)
    if policy.dialect is not None and policy.sql_aliases:
        database = _pages(tables, settings, policy, policy.dialect)
        for name in filter(None, sql.alias_names(database, user.name, _wait(settings))):
            yield Candidate(name, False)
            if name.endswith(b"-default"):
                yield Candidate(name.removesuffix(b"default"), True)
            if policy.qmail_ext:
                yield Candidate(name + b"-", True)
    if policy.ezmlm_directory:
        for name in files.listing(tables, user.home, Rights(user.uid, user.gid)) or []:
            yield Candidate(name + b"-", True)


def _known(tables: Tables, settings: Settings, user: User, policy: Vpopmail) -> Iterator[bytes]:
    """The names of a domain's accounts.  Raises `Unavailable`."""
    if policy.dialect is None:
        return accounts(tables, user)
    database = _pages(tables, settings, policy, policy.dialect)
    return sql.names(database, user.name, policy.dialect, _wait(settings), many_domains=policy.many_domains)


def _pages(tables: Tables, settings: Settings, policy: Vpopmail, dialect: Dialect) -> sql.Paged:
    from cvm_vpopmail.tables.databases import pages  # only with a database

    return pages(tables, settings, policy, dialect)


def _wait(settings: Settings) -> float:
    """Seconds for a page: less than the time after which this process counts as hanging."""
    return settings.lookup_timeout * 0.8


def accounts(tables: Tables, user: User) -> Iterator[bytes]:
    """The names in vpasswd.cdb, or in vpasswd where there is none.  Raises `Unavailable`, also on the way."""
    found = _records(tables, user.home + b"/vpasswd.cdb", user)
    if found is not None:
        return (name for name, _ in found)
    lines = (read_file(tables, user.home + b"/vpasswd", user) or b"").split(b"\n")
    return (line.partition(b":")[0] for line in lines if b":" in line)


def _records(tables: Tables, path: bytes, user: User) -> Iterator[tuple[bytes, bytes]] | None:
    """The records of a database as this process reads it, or else its user."""
    try:
        return tables.cdb_records(path)
    except Unavailable:
        return tables.cdb_records(path, Rights(user.uid, user.gid))


def read_file(tables: Tables, path: bytes, user: User) -> bytes | None:
    """A file as this process reads it, or else its user."""
    try:
        return tables.file(path, secret=True)
    except Unavailable:
        return tables.file(path, Rights(user.uid, user.gid), secret=True)


def is_stale(tables: Tables, user: User) -> bool:
    """Whether vpasswd.cdb is older than vpasswd."""
    rights = Rights(user.uid, user.gid)
    source = or_none(partial(tables.status, user.home + b"/vpasswd", rights))
    made = or_none(partial(tables.status, user.home + b"/vpasswd.cdb", rights))
    return source is not None and made is not None and made.mtime < source.mtime
