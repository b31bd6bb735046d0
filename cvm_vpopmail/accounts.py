"""The words that all of vpopmail shares: a domain, an account, and the one who looks at files.

Source: vpopmail's vpopmail.h (struct vqpasswd, the pw_gid bits), qmail-users(5).
"""

from __future__ import annotations

from enum import IntFlag
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from cvm_qmail.lookups import Proof
    from cvm_qmail.tables.files import Status


class Flag(IntFlag):
    """The bits of pw_gid that matter here."""

    NO_POP = 0x2
    NO_WEBMAIL = 0x4
    NO_IMAP = 0x8
    BOUNCE_MAIL = 0x10
    NO_RELAY = 0x20
    NO_SMTP = 0x800
    V_OVERRIDE = 0x2000


class Domain(NamedTuple):
    """What users/cdb says of a domain: the record ``!NAME-``."""

    name: bytes
    """Of the real domain; it differs from the name asked for where that is an alias."""
    uid: int
    gid: int
    directory: bytes


class Secret(Protocol):
    """What is stored to prove an account by.  It shows nothing: it can only be asked."""

    def proves(self, proof: Proof, service: str) -> bool:
        """Whether this proof is the right one on this service."""
        ...


class Account(NamedTuple):
    """One account, without what proves it."""

    name: bytes
    flags: int
    gecos: bytes
    directory: bytes
    quota: bytes
    secret: Secret


class Sight(Protocol):
    """The file system as one user sees it; all paths absolute.  Each raises `Unavailable` if it cannot be told."""

    def file(self, path: bytes, /) -> bytes | None:
        """Content of a plain file that can be opened; None for anything else, refused included."""
        ...

    def status(self, path: bytes, /) -> Status | None:
        """What stat(2) says, links followed; None if it cannot be looked at."""
        ...

    def listing(self, path: bytes, /) -> list[bytes] | None:
        """The names in a folder; None if it cannot be listed."""
        ...

    def enters(self, path: bytes, /) -> bool:
        """Whether chdir(2) to `path` succeeds."""
        ...

    def writable(self, path: bytes, /) -> bool:
        """Whether files can be made in the folder `path`."""
        ...
