"""The database's address, and the user name and password: vpopmail's own credentials files.

    etc/vpopmail.mysql      host|port|user|password|database       for reading
                            host|port|user|password|database       for updating: optional
    etc/vpopmail.pgsql      host|port|user|password|database       one line

MySQL: fields that are empty are skipped, so that none can be; a port that starts with ``/`` is a socket,
0 the usual port.  Without the second line the first is for both.  A vpopmail that was built without
replication asks the server for updating, always; one that was built with it asks the one for reading,
and the other when that fails.  PostgreSQL: an empty field takes vpopmail's own value; a host that starts
with ``/`` is the directory of the socket.

Invariants: a password never shows: not in an error, a repr or a trace.

Source: vmysql.c, vpgsql.c (load_connection_info), vpgsql.h (PG_CONNECT); mysql_real_connect(3).
"""

from typing import NamedTuple

from cvm_vpopmail.rules.numbers import strtol

LINE_LIMIT = 1024
"""Bytes of a line; vpopmail's own buffer is smaller."""

FORM = "host|port|user|password|database"


class BadFile(Exception):
    """A credentials file that cannot be used.  Its message has the number of the line, never its text."""


class Password:
    """Shows nothing."""

    __slots__ = ("value",)

    def __init__(self, value: bytes) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "Password(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Password) and other.value == self.value

    __hash__ = None  # type: ignore[assignment]  # a secret must not be used as a key


class Place(NamedTuple):
    """A server's address, in the form of a setting."""

    host: str
    port: int
    """0: the default port."""
    socket: str
    """MySQL: path of the socket; empty: TCP to host and port."""


class Server(NamedTuple):
    """One database server, with user name and password."""

    host: str
    """Empty: the driver's own socket."""
    port: int
    """0: the default port."""
    socket: str
    """MySQL: path of the socket; empty: TCP to host and port."""
    user: str
    password: Password
    database: str

    @property
    def name(self) -> str:
        """The server's name in messages."""
        if self.socket:
            return self.socket
        host = f"[{self.host}]" if ":" in self.host else self.host or "localhost"
        return f"{host}:{self.port}" if self.port else host


def parse_mysql(text: bytes, *, replica: bool) -> list[Server]:
    """The servers for lookups that ``vpopmail.mysql`` names, in order.  Raises `BadFile`."""
    lines = _lines(text)[:2]
    if not lines:
        raise BadFile(f"found no line that is not a comment, expected {FORM}")
    parsed = [_mysql(number, line) for number, line in lines]
    return parsed if replica else parsed[-1:]


def _mysql(number: int, line: bytes) -> Server:
    fields = [field for field in line.split(b"|") if field]
    if len(fields) < 5:
        found = f"{len(fields)} field{'s' * (len(fields) != 1)} that are not empty"
        raise BadFile(f"line {number}: found {found}, expected {FORM}")
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
        raise BadFile(f"found no line that is not a comment, expected {FORM}")
    number, line = lines[0]
    host, port, user, password, database = (line.split(b"|") + [b""] * 4)[:5]
    if port and not port.isdigit():
        raise BadFile(f"line {number}: found a port that is no number, expected {FORM}")
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


def _lines(text: bytes) -> list[tuple[int, bytes]]:
    """The lines that are not comments, with their numbers.  A line with only blanks is not empty, as in vpopmail."""
    found = []
    for at, line in enumerate(text.split(b"\n"), 1):
        if line and not line.startswith(b"#"):
            if len(line) > LINE_LIMIT or b"\0" in line:
                raise BadFile(f"line {at}: found a NUL or more than {LINE_LIMIT} bytes, expected {FORM}")
            found.append((at, line))
    return found


def _port(number: int, port: int) -> int:
    if not 0 <= port <= 65535:
        raise BadFile(f"line {number}: found port {port}, expected one up to 65535")
    return port


def _text(number: int, field: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise BadFile(f"line {number}: found a {field} that is not UTF-8, expected {FORM}") from None
