"""Which databases are asked: the settings, and vpopmail's own file with the credentials.

Source: vmysql.c, vpgsql.c (load_connection_info).
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from cvm_qmail.answer import Kind, Unavailable
from cvm_qmail.settings import BadSetting, Invalid, Setting, Settings, choice, flag, number, optional, path, read
from cvm_qmail.tables.door import Tables
from cvm_vpopmail.credentials import FORM, BadFile, Place, Server
from cvm_vpopmail.dialects import DIALECTS, Dialect


class Options(NamedTuple):
    """Which servers are asked, and how they are reached."""

    dialect: Dialect
    file: bytes
    """The file with the credentials."""
    servers: tuple[Place, ...]
    """The servers to try in this order; empty: those of the file."""
    primary: tuple[Place, ...]
    """The server that the others follow; empty: none is named."""
    max_lag: int
    """Seconds; 0: any."""
    replica: bool
    tls: str
    ca: str
    charset: str

    @classmethod
    def from_settings(cls, settings: Settings, dialect: Dialect, directory: bytes) -> Options:
        """The settings for one dialect; `directory`: vpopmail's.  Raises `BadSetting`."""
        given = read(SETTINGS, settings.environment)
        file = given.pop("file") or b"%s/%s" % (directory, dialect.credentials)
        servers = tuple(place(word, dialect) for word in given.pop("servers"))
        named = given.pop("primary")
        primary = (place(named, dialect, "CVM_VPOPMAIL_SQL_PRIMARY"),) if named else ()
        return cls(dialect=dialect, file=file, servers=servers, primary=primary, **given)


class Lifetimes(NamedTuple):
    """How long answers are cached, in seconds; 0: not at all."""

    found: int
    not_found: int
    stale: int
    """More time for what was found, while no database answers."""
    size: int
    """The number of answers that a worker caches."""

    @classmethod
    def from_settings(cls, settings: Settings) -> Lifetimes:
        """Raises `BadSetting`."""
        return cls(**read(LIFETIMES, settings.environment))


def _charset(text: str | None) -> str:
    name = text or "utf8mb4"
    if not re.fullmatch("[a-z0-9_]{1,32}", name):
        raise Invalid("the name of a character set: a-z, 0-9 and _")
    return name


def absolute(text: str | None) -> str:
    """A path, or empty.  Raises `Invalid`."""
    if text and not (text.startswith("/") and text.isprintable()):  # drivers take text only
        raise Invalid("a path that starts with /, in UTF-8")
    return text or ""


SETTINGS: dict[str, Setting[Any]] = {
    "file": Setting(
        "CVM_VPOPMAIL_SQL_FILE",
        f"{' or '.join(dialect.credentials.decode() for dialect in DIALECTS.values())} in the vpopmail directory",
        lambda text: None if not text else path(b"/")(text),
        "SQL: the file with the credentials",
    ),
    "servers": Setting(
        "CVM_VPOPMAIL_SQL_SERVERS",
        "those of the file",
        lambda text: tuple((text or "").split()),
        "SQL: servers to try in this order, separated by spaces: host, host:port, or the path of a socket",
    ),
    "primary": Setting(
        "CVM_VPOPMAIL_SQL_PRIMARY",
        "unset",
        optional,
        "SQL: the server that the others follow: it is asked too before an address is rejected",
    ),
    "max_lag": Setting(
        "CVM_VPOPMAIL_SQL_MAX_LAG",
        "0",
        number(0, 0, 86400),
        "PostgreSQL: how far behind a replica that rejects an address may be; 0: not checked",
        "seconds",
    ),
    "replica": Setting(
        "CVM_VPOPMAIL_SQL_REPLICA",
        "0",
        flag(),
        "MySQL: 1: built with replication: the file's first line is asked first, the second when that fails",
    ),
    "tls": Setting(
        "CVM_VPOPMAIL_SQL_TLS",
        "off",
        choice("off", "on", "verify"),
        "SQL over TCP: off, on, or verify: with a check of the certificate",
    ),
    "ca": Setting(
        "CVM_VPOPMAIL_SQL_CA", "the system's", absolute, "SQL: file with the certificates that verify trusts"
    ),
    "charset": Setting(
        "CVM_VPOPMAIL_SQL_CHARSET",
        "utf8mb4",
        _charset,
        "MySQL: the character set in which vpopmail's client library gets text",
    ),
}
"""The settings of `Options`."""

LIFETIMES: dict[str, Setting[Any]] = {
    "found": Setting(
        "CVM_VPOPMAIL_CACHE",
        "0",
        number(0, 0, 86400),
        "SQL: time for which a found account, alias or limit is cached; 0: not cached",
        "seconds",
    ),
    "not_found": Setting(
        "CVM_VPOPMAIL_CACHE_NEGATIVE",
        "0",
        number(0, 0, 86400),
        "SQL: the same for names that were not found",
        "seconds",
    ),
    "stale": Setting(
        "CVM_VPOPMAIL_CACHE_STALE",
        "0",
        number(0, 0, 86400),
        "SQL: more time for which cached entries are used while no database answers",
        "seconds",
    ),
    "size": Setting(
        "CVM_VPOPMAIL_CACHE_SIZE",
        "10000",
        number(10000, 1, 10_000_000),
        "SQL: the number of answers that a worker caches",
    ),
}
"""The settings of `Lifetimes`."""


_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]|]+))(?::([0-9]{1,5}))?")


def place(word: str, dialect: Dialect, variable: str = "CVM_VPOPMAIL_SQL_SERVERS") -> Place:
    """Where the server is that one word of a setting names.  Raises `BadSetting`."""
    if word.startswith("/") and word.isprintable():
        return dialect.at_socket(word)
    match = _HOST.fullmatch(word)
    if match is None or int(match[3] or 0) > 65535 or not word.isprintable():
        expected = "names or addresses of servers, each with :port if it is not the usual one, or paths of sockets"
        raise BadSetting(variable, word, expected)
    return Place(match[1] or match[2], int(match[3] or 0), "")


def servers(tables: Tables, options: Options) -> list[Server]:
    """The servers to try, in order, as the file says now.  Raises `Unavailable`: MISCONFIGURED if the file is wrong."""
    text = tables.file(options.file, secret=True)
    try:
        if text is None:
            raise BadFile(f"there is no such file, expected one with a line {FORM}")
        found = options.dialect.parse(text, replica=options.replica)
    except BadFile as bad:
        raise Unavailable("database-settings", str(bad), options.file, kind=Kind.MISCONFIGURED) from None
    if not options.servers:
        return found
    return [
        found[0]._replace(host=host, port=port or found[0].port * (not found[0].socket), socket=socket)
        for host, port, socket in options.servers
    ]


def all_servers(tables: Tables, options: Options) -> list[Server]:
    """Those of `servers`, and the primary if it is not one of them.  Raises `Unavailable`."""
    found = servers(tables, options)
    named = servers(tables, options._replace(servers=options.primary)) if options.primary else []
    return found + [server for server in named if server not in found]
