"""``cvm-vpopmail --check``: connects to every database server that is configured, and checks every table and column.

Exit status: 0 all is well; 100 something has to be fixed (a setting, a file, a right, a table, a column);
111 a server cannot be asked now.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from cvm_qmail.answer import Unavailable
from cvm_qmail.escape import escape_text
from cvm_qmail.settings import BadSetting, Settings
from cvm_qmail.tables.door import Tables
from cvm_vpopmail import sqlconfig
from cvm_vpopmail.credentials import Server
from cvm_vpopmail.dialects import Dialect
from cvm_vpopmail.settings import Vpopmail
from cvm_vpopmail.sqlconfig import Lifetimes, Options
from cvm_vpopmail.tables.connection import Connect, Connection, DatabaseError, Select, Terms
from cvm_vpopmail.tables.databases import driver
from cvm_vpopmail.tables.domains import Domains
from cvm_vpopmail.tables.sql import ALIASES, LIMITS, SqlAccounts

FINE, PERMANENT, TEMPORARY = 0, 100, 111

_NEEDS_A_FIX = frozenset({"database-settings", "database-refused", "database-tables", "database-columns"})

_DOMAINS_SHOWN = 20
"""The number of failing tables of domains that are reported."""

Say = Callable[[str], None]


def main() -> int:
    """Checks the servers that the environment configures; returns the exit status."""
    try:
        settings = Settings.from_environment()
        policy = Vpopmail.from_settings(settings)
        return check(settings, policy, lambda line: print(escape_text(line), flush=True))
    except BadSetting as bad:
        print(f"cvm-vpopmail: {escape_text(str(bad))}", file=sys.stderr)
        return PERMANENT
    except Unavailable as error:
        text = f"{os.fsdecode(error.where)}: {error.detail or error.reason}"
        print(f"cvm-vpopmail: {escape_text(text)}", file=sys.stderr)
        return _status(error.reason)


def check(settings: Settings, policy: Vpopmail, say: Say) -> int:
    """The exit status.  Raises `BadSetting`, `Unavailable`."""
    say(f"vpopmail: {os.fsdecode(policy.directory)}, back end {policy.backend}")
    if policy.guessed and not os.path.isdir(policy.directory):
        say("that directory does not exist: set CVM_VPOPMAIL_DIR")
        return TEMPORARY
    dialect = policy.dialect
    if dialect is None:
        say("accounts are in files: there is no database to check")
        return FINE
    tables = Tables(settings)
    options = Options.from_settings(settings, dialect, policy.directory)
    Lifetimes.from_settings(settings)  # a server would not start with one that is wrong
    connect = driver(dialect)
    servers = sqlconfig.all_servers(tables, options)
    say(f"credentials: {os.fsdecode(options.file)}")
    questions = list(_questions(tables, settings, policy, dialect))
    return _worst([_server(server, settings, options, connect, questions, say=say) for server in servers])


def _server(
    server: Server,
    settings: Settings,
    options: Options,
    connect: Connect,
    questions: Sequence[tuple[Select, str]],
    *,
    say: Say,
) -> int:
    """The exit status of one server."""
    wait = settings.lookup_timeout
    name = f"{options.dialect.name}:{server.name}, user {server.user}, database {server.database}"
    try:
        connection = connect(
            server, Terms(options.tls, options.ca, options.charset, wait, wait, time.monotonic() + wait)
        )
    except DatabaseError as error:
        say(f"{name}: {error.detail} ({error.reason})")
        return _status(error.reason)
    follows = ", follows another server" if connection.leads is False else ""
    say(f"{name}: {connection.about}, TLS {options.tls}, read-only{follows}")
    if follows and not (options.primary or options.max_lag):
        say("  it rejects accounts that it does not have yet: set CVM_VPOPMAIL_SQL_PRIMARY or CVM_VPOPMAIL_SQL_MAX_LAG")
    try:
        return _tables(connection, questions, wait, say)
    finally:
        connection.close()


def _tables(connection: Connection, questions: Sequence[tuple[Select, str]], wait: float, say: Say) -> int:
    worst = FINE
    failed = 0
    for select, if_missing in questions:
        try:
            connection.rows(select, [b"" for _ in select.keys], time.monotonic() + wait)
        except DatabaseError as error:
            if error.reason == "database-tables" and if_missing:
                say(f"  {select.table}: is not there: {if_missing}")
                continue
            worst = _worst((worst, _status(error.reason)))
            failed += 1
            if failed <= _DOMAINS_SHOWN:
                say(f"  {select.table}: {error.detail} ({error.reason})")
            if error.lost:
                break
        else:
            if len(questions) <= _DOMAINS_SHOWN:
                say(f"  {select.table}: {', '.join(dict.fromkeys((*select.keys, *select.columns)))}")
    if failed > _DOMAINS_SHOWN:
        say(f"  and {failed - _DOMAINS_SHOWN} more")
    if len(questions) > _DOMAINS_SHOWN:
        say(f"  {len(questions) - failed} of {len(questions)} tables are fine")
    return worst


def _questions(tables: Tables, settings: Settings, policy: Vpopmail, dialect: Dialect) -> Iterator[tuple[Select, str]]:
    """The queries that must work, each with the meaning of a missing table if that is not an error."""
    accounts = SqlAccounts(_Nobody(), dialect, many_domains=policy.many_domains, clear=policy.clear_passwords)
    if policy.many_domains:
        yield accounts.select(b""), ""
    else:
        for domain in sorted(_domains(tables, settings)):
            yield accounts.select(domain), ""
    if policy.sql_aliases:
        yield ALIASES, "there are no SQL aliases until vpopmail makes it"
    if policy.sql_limits:
        yield LIMITS, "limits are those of etc/vlimits.default until vpopmail makes it"


def _domains(tables: Tables, settings: Settings) -> set[bytes]:
    """The real names of the domains of virtualdomains that vpopmail knows.  Raises `Unavailable`."""
    text = tables.file(settings.qmail_root + b"/control/virtualdomains") or b""
    known = Domains(tables)
    found = (known.get(line.partition(b":")[0].strip().lower()) for line in text.split(b"\n"))
    return {domain.name for domain in found if domain is not None}


def _status(reason: str) -> int:
    return PERMANENT if reason in _NEEDS_A_FIX else TEMPORARY


def _worst(statuses: Sequence[int]) -> int:
    """What has to be fixed counts more than what may pass."""
    return PERMANENT if PERMANENT in statuses else max(statuses)


class _Nobody:
    """A `sql.Database` that is never asked."""

    def rows(self, select: Select, values: Sequence[bytes]) -> list[Sequence[bytes | None]]:
        raise AssertionError(select, values)
