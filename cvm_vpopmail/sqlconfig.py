"""Where the database is: vpopmail's own files, and the settings that override them.

    etc/vpopmail.mysql      host|port|user|password|database       for reading
                            host|port|user|password|database       for updating: optional
    etc/vpopmail.pgsql      host|port|user|password|database       one line

MySQL: fields that are empty are skipped, so that none can be; a port that starts with ``/`` is a socket,
0 the usual port.  Without the second line the first is for both.  A vpopmail that was built without
replication asks the server for updating, always; one that was built with it asks the one for reading,
and the other when that fails.  PostgreSQL: an empty field takes vpopmail's own value; a host that starts
with ``/`` is the folder of the socket.

Law: a password never shows: not in an error, a repr or a trace.

Source: vmysql.c, vpgsql.c (load_connection_info), vpgsql.h (PG_CONNECT); mysql_real_connect(3).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cvm_qmail.answer import Unavailable
from cvm_qmail.settings import BadSetting, Settings
from cvm_qmail.tables import Tables
from cvm_qmail.wire import Code
from cvm_vpopmail.rules.numbers import strtol

LINE_LIMIT = 1024
"""Bytes of a line; vpopmail's own buffer is smaller."""

_FORM = "host|port|user|password|database"


class BadFile(Exception):
    """A credentials file that cannot be used.  Shows the number of the line, never its text."""


class Password:
    """Shows nothing."""

    __slots__ = ("value",)

    def __init__(self, value: bytes) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "Password(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Password) and other.value == self.value

    __hash__ = None  # type: ignore[assignment]  # what is secret is no key


class Server(NamedTuple):
    """One database server, and who we are to it."""

    host: str
    """Empty: the driver's own socket."""
    port: int
    """0: the usual one."""
    socket: str
    """MySQL: path of the socket; empty: TCP to host and port."""
    user: str
    password: Password
    database: str

    @property
    def name(self) -> str:
        """For people and for logs."""
        if self.socket:
            return self.socket
        host = f"[{self.host}]" if ":" in self.host else self.host or "localhost"
        return f"{host}:{self.port}" if self.port else host


class Options(NamedTuple):
    """The settings of the database back ends."""

    backend: str
    file: bytes
    """The file with the credentials."""
    servers: tuple[tuple[str, int, str], ...]
    """Host, port and socket of the servers to try in this order; empty: those of the file."""
    replica: bool
    tls: str
    ca: str
    charset: str
    cache: int
    cache_negative: int
    cache_stale: int
    cache_size: int

    @classmethod
    def from_settings(cls, settings: Settings, backend: str, directory: bytes) -> Options:
        """Raises `BadSetting`."""
        charset = settings.environment.get("CVM_VPOPMAIL_SQL_CHARSET") or "latin1"
        if not re.fullmatch("[a-z0-9_]{1,32}", charset):
            raise BadSetting("CVM_VPOPMAIL_SQL_CHARSET", charset, "the name of a character set: a-z, 0-9 and _")
        ca = settings.environment.get("CVM_VPOPMAIL_SQL_CA", "")
        if ca and not ca.startswith("/"):
            raise BadSetting("CVM_VPOPMAIL_SQL_CA", ca, "a path that starts with /")
        return cls(
            backend=backend,
            file=settings.folder("CVM_VPOPMAIL_SQL_FILE", b"%s/etc/vpopmail.%s" % (directory, backend.encode())),
            servers=tuple(
                _server(word, backend) for word in settings.environment.get("CVM_VPOPMAIL_SQL_SERVERS", "").split()
            ),
            replica=settings.flag("CVM_VPOPMAIL_SQL_REPLICA"),
            tls=settings.choice("CVM_VPOPMAIL_SQL_TLS", "off", ("off", "on", "verify")),
            ca=ca,
            charset=charset,
            cache=settings.number("CVM_VPOPMAIL_CACHE", 0, 0, 86400),
            cache_negative=settings.number("CVM_VPOPMAIL_CACHE_NEGATIVE", 0, 0, 86400),
            cache_stale=settings.number("CVM_VPOPMAIL_CACHE_STALE", 0, 0, 86400),
            cache_size=settings.number("CVM_VPOPMAIL_CACHE_SIZE", 10000, 1, 10_000_000),
        )


_PLACE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]|]+))(?::([0-9]{1,5}))?")


def _server(word: str, backend: str) -> tuple[str, int, str]:
    if word.startswith("/"):
        return ("localhost", 0, word) if backend == "mysql" else (word, 0, "")
    match = _PLACE.fullmatch(word)
    if match is None or int(match[3] or 0) > 65535:
        expected = "names or addresses of servers, each with :port if it is not the usual one, or paths of sockets"
        raise BadSetting("CVM_VPOPMAIL_SQL_SERVERS", word, expected)
    return match[1] or match[2], int(match[3] or 0), ""


def servers(tables: Tables, options: Options) -> list[Server]:
    """The servers to try, in order, as the file says now.  Raises `Unavailable`, code 6 if the file is wrong."""
    text = tables.file(options.file, secret=True)
    try:
        if text is None:
            raise BadFile(f"there is no such file, expected one with a line {_FORM}")
        found = _PARSERS[options.backend](text, replica=options.replica)
    except BadFile as bad:
        raise Unavailable("database-settings", str(bad), options.file, code=Code.CONFIG) from None
    if not options.servers:
        return found
    return [
        found[0]._replace(host=host, port=port or found[0].port * (not found[0].socket), socket=socket)
        for host, port, socket in options.servers
    ]


def parse_mysql(text: bytes, *, replica: bool) -> list[Server]:
    """The servers for look-ups that ``vpopmail.mysql`` names, in order.  Raises `BadFile`."""
    lines = _lines(text)[:2]
    if not lines:
        raise BadFile(f"found no line that is not a comment, expected {_FORM}")
    parsed = [_mysql(number, line) for number, line in lines]
    return parsed if replica else parsed[-1:]


def _mysql(number: int, line: bytes) -> Server:
    fields = [field for field in line.split(b"|") if field]
    if len(fields) < 5:
        found = f"{len(fields)} field{'s' * (len(fields) != 1)} that are not empty"
        raise BadFile(f"line {number}: found {found}, expected {_FORM}")
    host, port, user, password, database = fields[:5]
    socket = _text(number, "port", port) if port.startswith(b"/") else ""
    return Server(
        _text(number, "host", host),
        0 if socket else _port(number, strtol(port)),
        socket,
        _text(number, "user", user),
        Password(password),
        _text(number, "database", database),
    )


def parse_pgsql(text: bytes, *, replica: bool) -> list[Server]:  # noqa: ARG001  there is one line only
    """The one server that ``vpopmail.pgsql`` names.  Raises `BadFile`."""
    lines = _lines(text)
    if not lines:
        raise BadFile(f"found no line that is not a comment, expected {_FORM}")
    number, line = lines[0]
    host, port, user, password, database = (line.split(b"|") + [b""] * 4)[:5]
    if port and not port.isdigit():
        raise BadFile(f"line {number}: found a port that is no number, expected {_FORM}")
    return [
        Server(
            _text(number, "host", host),
            _port(number, int(port[:10] or b"0")),
            "",
            _text(number, "user", user) or "postgres",
            Password(password),
            _text(number, "database", database) or "vpopmail",
        )
    ]


_PARSERS = {"mysql": parse_mysql, "pgsql": parse_pgsql}


def _lines(text: bytes) -> list[tuple[int, bytes]]:
    """The lines that count, with their numbers.  A line with only blanks is not empty, as in vpopmail."""
    found = []
    for number, line in enumerate(text.split(b"\n"), 1):
        if line and not line.startswith(b"#"):
            if len(line) > LINE_LIMIT or b"\0" in line:
                raise BadFile(f"line {number}: found a NUL or more than {LINE_LIMIT} bytes, expected {_FORM}")
            found.append((number, line))
    return found


def _port(number: int, port: int) -> int:
    if not 0 <= port <= 65535:
        raise BadFile(f"line {number}: found port {port}, expected one up to 65535")
    return port


def _text(number: int, field: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise BadFile(f"line {number}: found a {field} that is not UTF-8, expected {_FORM}") from None
