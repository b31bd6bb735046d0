"""The types that all of vpopmail's modules share: a domain, an account, and the file system with a user's rights.

Source: vpopmail's vpopmail.h (struct vqpasswd, the pw_gid bits), qmail-users(5).
"""

from __future__ import annotations

from enum import IntFlag
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from cvm_qmail.passwords import Secret
    from cvm_qmail.tables.access import Status


class Flag(IntFlag):
    """The bits of pw_gid that are used here."""

    NO_POP = 0x2
    NO_WEBMAIL = 0x4
    NO_IMAP = 0x8
    BOUNCE_MAIL = 0x10
    NO_RELAY = 0x20
    NO_SMTP = 0x800
    V_OVERRIDE = 0x2000


class Domain(NamedTuple):
    """The record of a domain in users/cdb: ``!NAME-``."""

    name: bytes
    """The name of the real domain; for an alias domain it differs from the name asked about."""
    uid: int
    gid: int
    directory: bytes


class Account(NamedTuple):
    """One account, without its password."""

    name: bytes
    flags: int
    gecos: bytes
    directory: bytes
    quota: bytes
    secret: Secret


class View(Protocol):
    """The file system with one user's rights; all paths are absolute.  Each method raises `Unavailable`."""

    def file(self, path: bytes, /) -> bytes | None:
        """Content of a regular file that can be opened; None for anything else, a denied access included."""
        ...

    def status(self, path: bytes, /) -> Status | None:
        """The result of stat(2), which follows links; None if it fails."""
        ...

    def listing(self, path: bytes, /) -> list[bytes] | None:
        """The names in a directory; None if it cannot be listed."""
        ...

    def enters(self, path: bytes, /) -> bool:
        """Whether chdir(2) to `path` succeeds."""
        ...

    def writable(self, path: bytes, /) -> bool:
        """Whether files can be made in the directory `path`."""
        ...

    def is_link(self, path: bytes, /) -> bool:
        """Whether the name is a symbolic link; where `status` is None, one that leads nowhere."""
        ...
