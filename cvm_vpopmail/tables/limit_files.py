"""Limits of domains, from their files."""

from __future__ import annotations

from cvm_qmail.answer import Unavailable
from cvm_qmail.tables.door import Rights, Tables
from cvm_qmail.tables.errors import REFUSED
from cvm_vpopmail.accounts import Domain
from cvm_vpopmail.rules.limits import Limits, parse


class LimitFiles:
    """Limits of domains from their files: ``.qmailadmin-limits``, else the system-wide ``etc/vlimits.default``."""

    def __init__(self, tables: Tables, directory: bytes) -> None:
        self._tables = tables
        self._default = directory + b"/etc/vlimits.default"

    def get(self, domain: Domain, /) -> Limits:
        """The limits; none at all if there is no file.  Raises `Unavailable`."""
        path = domain.directory + b"/.qmailadmin-limits"
        try:
            text = self._tables.file(path, Rights(domain.uid, domain.gid))
        except Unavailable as error:
            if error.errno not in REFUSED:
                raise
            text = self._tables.as_self(lambda: self._tables.file(path))
        return parse(self.default() if text is None else text)

    def default(self) -> bytes:
        """The content of the system-wide file; empty if there is none.  Raises `Unavailable`."""
        return self._tables.as_self(lambda: self._tables.file(self._default)) or b""
