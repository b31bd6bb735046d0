"""The tables of a host whose accounts are in a database, as the settings name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from cvm_qmail.answer import Table
from cvm_qmail.process.network import Network
from cvm_qmail.settings import BadSetting, Settings
from cvm_qmail.tables.door import Tables
from cvm_vpopmail.accounts import Account, Domain
from cvm_vpopmail.dialects import Dialect
from cvm_vpopmail.notices import SHARED, Notices
from cvm_vpopmail.rules.limits import Limits
from cvm_vpopmail.settings import Vpopmail
from cvm_vpopmail.sqlconfig import Lifetimes, Options
from cvm_vpopmail.tables import network
from cvm_vpopmail.tables.cache import Cached
from cvm_vpopmail.tables.connection import Connect
from cvm_vpopmail.tables.limit_files import LimitFiles
from cvm_vpopmail.tables.pages import Pages
from cvm_vpopmail.tables.replicas import Replicas
from cvm_vpopmail.tables.sql import Logins, MayBeMissing, SqlAccounts, SqlAliases, SqlLimits

K = TypeVar("K")
V = TypeVar("V")


class Sql(NamedTuple):
    """The tables of such a host."""

    network: Network
    """The sockets that asking takes."""
    accounts: Table[tuple[Domain, bytes], Account]
    logins: Logins
    """Never from the cache."""
    aliases: Table[tuple[bytes, bytes], Sequence[bytes]] | None
    limits: Table[Domain, Limits]


def driver(dialect: Dialect, variable: str = "CVM_VPOPMAIL_BACKEND") -> Connect:
    """How to connect.  Raises `BadSetting` (for `variable`) if the Python module for it is not installed."""
    try:
        return dialect.driver()
    except ImportError as missing:
        extra = f"pip install 'cvm-qmail[{dialect.name}]'"
        expected = f"the Python module for it: {dialect.needs}, as by {extra} ({missing})"
        raise BadSetting(variable, dialect.name, expected) from None


def sql(tables: Tables, settings: Settings, policy: Vpopmail, dialect: Dialect, notices: Notices = SHARED) -> Sql:
    """The tables of this policy; nothing is connected yet.  Raises `BadSetting`."""
    options, lifetimes = Options.from_settings(settings, dialect, policy.directory), Lifetimes.from_settings(settings)
    connect, declared = driver(dialect), network.declared(tables, options)

    def valid_until(moment: float) -> None:
        tables.current.valid_until(moment)

    def kept(table: Table[K, V]) -> Table[K, V]:
        if not lifetimes.found and not lifetimes.not_found:
            return table
        return Cached(table, lifetimes, valid_until, notices)

    database = Replicas.of(tables, options, connect, settings.lookup_timeout, notices, allowed=declared)
    accounts = SqlAccounts(database, dialect, many_domains=policy.many_domains, clear=policy.clear_passwords)
    optional = MayBeMissing(database, notices.seen)
    files = LimitFiles(tables, policy.directory)
    return Sql(
        declared,
        tables.traced("account", kept(accounts)),
        Logins(tables.traced("account", accounts), as_given=dialect.login_as_given),
        tables.traced("alias", kept(SqlAliases(optional))) if policy.sql_aliases else None,
        tables.traced("limits", kept(SqlLimits(optional, files)) if policy.sql_limits else files),
    )


def pages(tables: Tables, settings: Settings, policy: Vpopmail, dialect: Dialect) -> Pages:
    """All rows of these tables, for cvmctl; nothing is connected yet.  Raises `BadSetting`."""
    return Pages(tables, Options.from_settings(settings, dialect, policy.directory), driver(dialect))
