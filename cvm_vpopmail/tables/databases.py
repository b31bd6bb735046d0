"""The tables of a host whose accounts are in a database, as the settings name them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from cvm_qmail.answer import Table
from cvm_qmail.settings import BadSetting, Settings
from cvm_qmail.tables import Tables
from cvm_vpopmail.accounts import Account, Domain
from cvm_vpopmail.notices import SHARED, Notices
from cvm_vpopmail.rules.limits import Limits
from cvm_vpopmail.settings import Vpopmail
from cvm_vpopmail.sqlconfig import Options
from cvm_vpopmail.tables import LimitFiles
from cvm_vpopmail.tables.cache import Cached
from cvm_vpopmail.tables.servers import Connect, Servers
from cvm_vpopmail.tables.sql import Logins, Optional, SqlAccounts, SqlAliases, SqlLimits

K = TypeVar("K")
V = TypeVar("V")


class Sql(NamedTuple):
    """What there is to ask."""

    options: Options
    servers: Servers
    accounts: Table[tuple[Domain, bytes], Account]
    logins: Logins
    """Never from the cache."""
    aliases: Table[tuple[bytes, bytes], Sequence[bytes]] | None
    limits: Table[Domain, Limits]


def driver(backend: str) -> Connect:
    """How to connect.  Raises `BadSetting` if the module for it is not installed."""
    try:
        return _DRIVERS[backend]()
    except ImportError as missing:
        need = {"mysql": "PyMySQL", "pgsql": "psycopg 3, and libpq"}[backend]
        expected = f"the Python module for it: {need}, as by pip install 'cvm-qmail[{backend}]' ({missing})"
        raise BadSetting("CVM_VPOPMAIL_BACKEND", backend, expected) from None


def _mysql() -> Connect:
    from cvm_vpopmail.tables import mysql

    return mysql.connect


def _pgsql() -> Connect:
    from cvm_vpopmail.tables import pgsql

    return pgsql.connect


_DRIVERS: dict[str, Callable[[], Connect]] = {"mysql": _mysql, "pgsql": _pgsql}


def sql(tables: Tables, settings: Settings, policy: Vpopmail, notices: Notices = SHARED) -> Sql:
    """Nothing is connected yet.  Raises `BadSetting`."""
    options = Options.from_settings(settings, policy.backend, policy.directory)
    servers = Servers(tables, options, driver(policy.backend), settings.lookup_timeout, notices)

    def kept(table: Table[K, V]) -> Table[K, V]:
        if not options.cache and not options.cache_negative:
            return table
        return Cached(table, options, tables.lasts, notices)

    accounts = SqlAccounts(servers, policy.backend, many_domains=policy.many_domains, clear=policy.clear_passwords)
    optional = Optional(servers, notices.seen)
    files = LimitFiles(tables, policy.directory)
    return Sql(
        options,
        servers,
        tables.watched("account", kept(accounts)),
        Logins(tables.watched("account", accounts), as_given=policy.backend == "pgsql"),
        tables.watched("alias", kept(SqlAliases(optional))) if policy.sql_aliases else None,
        tables.watched("limits", kept(SqlLimits(optional, files)) if policy.sql_limits else files),
    )
