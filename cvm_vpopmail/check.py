"""``cvm-vpopmail --check``: connects to every database server that is configured, and looks whether all is there.

Exit status: 0 all is well; 100 something has to be mended (a setting, a file, a right, a table, a column);
111 a server cannot be asked now.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from cvm_qmail.answer import Unavailable
from cvm_qmail.log import escape_text
from cvm_qmail.settings import BadSetting, Settings
from cvm_qmail.tables import Tables
from cvm_vpopmail import sqlconfig
from cvm_vpopmail.settings import Vpopmail
from cvm_vpopmail.sqlconfig import Options, Server
from cvm_vpopmail.tables import Domains
from cvm_vpopmail.tables.databases import driver
from cvm_vpopmail.tables.servers import Connect, Connection, Select, Terms, Trouble
from cvm_vpopmail.tables.sql import ALIASES, LIMITS, SqlAccounts

FINE, PERMANENT, TEMPORARY = 0, 100, 111

_TO_BE_MENDED = frozenset({"database-settings", "database-refused", "database-tables", "database-columns"})

_DOMAINS_SHOWN = 20
"""Tables of domains in trouble that are named."""

Say = Callable[[str], None]


def main() -> int:
    """Checks what the environment configures; the exit status."""
    try:
        settings = Settings.from_environment()
        policy = Vpopmail.from_settings(settings)
        return check(settings, policy, lambda line: print(escape_text(line), flush=True))
    except BadSetting as bad:
        print(f"cvm-vpopmail: {bad}", file=sys.stderr)
        return PERMANENT
    except Unavailable as trouble:
        print(f"cvm-vpopmail: {os.fsdecode(trouble.where)}: {trouble.detail or trouble.reason}", file=sys.stderr)
        return PERMANENT if trouble.reason in _TO_BE_MENDED else TEMPORARY


def check(settings: Settings, policy: Vpopmail, say: Say) -> int:
    """The exit status.  Raises `BadSetting`, `Unavailable`."""
    say(f"vpopmail: {os.fsdecode(policy.directory)}, back end {policy.backend}")
    if policy.guessed and not os.path.isdir(policy.directory):
        say("that directory is not there: name it with CVM_VPOPMAIL_DIR")
        return TEMPORARY
    if policy.backend == "cdb":
        say("accounts are in files: there is nothing to connect to")
        return FINE
    tables = Tables(settings)
    options = Options.from_settings(settings, policy.backend, policy.directory)
    connect = driver(policy.backend)
    servers = sqlconfig.servers(tables, options)
    say(f"credentials: {os.fsdecode(options.file)}")
    questions = list(_questions(tables, settings, policy))
    statuses = [_server(server, settings, options, connect, questions, say=say) for server in servers]
    return max(statuses) if PERMANENT not in statuses else PERMANENT


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
    name = f"{options.backend}:{server.name}, user {server.user}, database {server.database}"
    try:
        connection = connect(
            server, Terms(options.tls, options.ca, options.charset, wait, wait, time.monotonic() + wait)
        )
    except Trouble as trouble:
        say(f"{name}: {trouble.detail} ({trouble.reason})")
        return _status(trouble)
    say(f"{name}: {connection.about}, TLS {options.tls}, read-only")
    try:
        return _tables(connection, questions, wait, say)
    finally:
        connection.close()


def _tables(connection: Connection, questions: Sequence[tuple[Select, str]], wait: float, say: Say) -> int:
    worst = FINE
    told = 0
    for select, if_missing in questions:
        try:
            connection.rows(select, [b"" for _ in select.keys], time.monotonic() + wait)
        except Trouble as trouble:
            if trouble.reason == "database-tables" and if_missing:
                say(f"  {select.table}: is not there: {if_missing}")
                continue
            worst = PERMANENT if PERMANENT in (worst, _status(trouble)) else TEMPORARY
            told += 1
            if told <= _DOMAINS_SHOWN:
                say(f"  {select.table}: {trouble.detail} ({trouble.reason})")
            if trouble.lost:
                break
        else:
            if len(questions) <= _DOMAINS_SHOWN:
                say(f"  {select.table}: {', '.join(dict.fromkeys((*select.keys, *select.columns)))}")
    if told > _DOMAINS_SHOWN:
        say(f"  and {told - _DOMAINS_SHOWN} more")
    if len(questions) > _DOMAINS_SHOWN:
        say(f"  {len(questions) - told} of {len(questions)} tables are fine")
    return worst


def _questions(tables: Tables, settings: Settings, policy: Vpopmail) -> Iterator[tuple[Select, str]]:
    """What has to be possible to ask; with what it means if the table is not there, where that is no fault."""
    accounts = SqlAccounts(_Nobody(), policy.backend, many_domains=policy.many_domains, clear=policy.clear_passwords)
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


def _status(trouble: Trouble) -> int:
    return PERMANENT if trouble.reason in _TO_BE_MENDED else TEMPORARY


class _Nobody:
    """A `sql.Database` that is never asked."""

    def rows(self, select: Select, values: Sequence[bytes]) -> list[Sequence[bytes | None]]:
        raise AssertionError(select, values)
