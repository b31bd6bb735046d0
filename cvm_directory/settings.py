"""The settings of the directory, for who publishes it and for who answers from it."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from cvm_qmail.plugin import Settings
from cvm_qmail.settings import Setting, choice, number, optional, path, read
from cvm_vpopmail.dialects import DIALECTS
from cvm_vpopmail.sqlconfig import Options, absolute, place

_FILE = b"/etc/cvm-qmail/directory"
_DAY = 86400

SETTINGS: dict[str, Setting[Any]] = {
    "database": Setting(
        "CVM_DIRECTORY_DATABASE",
        "mysql",
        choice(*DIALECTS),
        f"where the directory is: {' or '.join(DIALECTS)} (MariaDB is mysql)",
    ),
    "file": Setting(
        "CVM_DIRECTORY_FILE",
        _FILE.decode(),
        path(_FILE),
        "the file with the credentials: host|port|user|password|database",
    ),
    "servers": Setting(
        "CVM_DIRECTORY_SERVERS",
        "that of the file",
        lambda text: tuple((text or "").split()),
        "servers to try in this order, separated by spaces: host, host:port, or the path of a socket",
    ),
    "primary": Setting(
        "CVM_DIRECTORY_PRIMARY",
        "unset",
        optional,
        "the server that the others follow: it is asked too before an address is rejected, and publications go there",
    ),
    "max_lag": Setting(
        "CVM_DIRECTORY_MAX_LAG",
        "0",
        number(0, 0, _DAY),
        "PostgreSQL: how far behind a replica that rejects an address may be; 0: not checked",
        "seconds",
    ),
    "tls": Setting(
        "CVM_DIRECTORY_TLS",
        "off",
        choice("off", "on", "verify"),
        "over TCP: off, on, or verify: with a certificate that is checked",
    ),
    "ca": Setting("CVM_DIRECTORY_CA", "the system's", absolute, "file with the certificates that verify trusts"),
    "max_age": Setting(
        "CVM_DIRECTORY_MAX_AGE",
        str(_DAY),
        number(_DAY, 0, 10 * 365 * _DAY),
        "age of a domain's last publication beyond which its addresses are temporary failures; 0: any",
        "seconds",
    ),
    "host": Setting(
        "CVM_DIRECTORY_HOST",
        "control/me",
        lambda text: os.fsencode(text) if text else None,
        "the name under which this host publishes",
    ),
}


class DirectorySettings(NamedTuple):
    """The values of `SETTINGS`."""

    options: Options
    """As the clients of databases want them."""
    max_age: int
    """Seconds; 0: any."""
    host: bytes | None

    @classmethod
    def from_settings(cls, settings: Settings) -> DirectorySettings:
        """Raises `BadSetting`."""
        given = read(SETTINGS, settings.environment)
        dialect = DIALECTS[given["database"]]
        named = given["primary"]
        options = Options(
            dialect=dialect,
            file=given["file"],
            servers=tuple(place(word, dialect, "CVM_DIRECTORY_SERVERS") for word in given["servers"]),
            primary=(place(named, dialect, "CVM_DIRECTORY_PRIMARY"),) if named else (),
            max_lag=given["max_lag"],
            replica=True,
            tls=given["tls"],
            ca=given["ca"],
            charset="utf8mb4",
        )
        return cls(options, given["max_age"], given["host"])
