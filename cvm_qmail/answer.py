"""The words that everything shares: what is asked, what is answered, and "cannot tell".

Three outcomes never mix.  A lookup returns an `Answer` (accept, reject, pass) or raises
`Unavailable`, which is neither yes nor no: the client is told to try again later.  A table returns a
value, or None for "not there", or raises `Unavailable`.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, Protocol, TypeVar

DRY_RUN = "dry run: this would be refused"
"""What the log says of a rejection that CVM_DRY_RUN has turned into an acceptance."""

K = TypeVar("K", contravariant=True)
V = TypeVar("V", covariant=True)

IO = 4
"""CVM code of a trouble, unless a better one is known (6: misconfigured; 7: credential missing)."""


class Recipient(NamedTuple):
    """The address asked for.  `domain` None: none was given; empty: the address is ``account@``."""

    account: bytes
    domain: bytes | None

    @property
    def address(self) -> bytes:
        """As a person writes it."""
        return self.account if self.domain is None else b"%s@%s" % self


class Verdict(Enum):
    """What a lookup says of an address.  The value is the first character of its log line."""

    ACCEPT = "+"
    REJECT = "-"
    """It would bounce: code 100, out of scope 0."""
    PASS = "="  # noqa: S105  not a password
    """Not ours to judge: code 100, out of scope 1.  Logged as ``-``, as the C program does."""


class Facts(NamedTuple):
    """What an acceptance tells, in the order in which it is sent; None is left out.

    The first two lines and `directory` are demanded by clients.
    """

    username: bytes
    userid: int
    groupid: int
    realname: bytes | None = None
    directory: bytes = b""
    shell: bytes | None = None
    groupname: bytes | None = None
    sys_username: bytes | None = None
    sys_directory: bytes | None = None
    domain: bytes | None = None
    mailbox: bytes | None = None


class Answer(NamedTuple):
    """A verdict with its reason: a constant word, the same in log, trace and metrics.

    `user` is the controlling user, `where` the deciding file or table; both may be empty.
    """

    verdict: Verdict
    reason: str
    user: bytes = b""
    where: bytes = b""
    facts: Facts | None = None


class Unavailable(Exception):
    """It cannot be told now.  `reason` is a constant word; `detail` is for people; `code` is CVM's.

    `errno` is the system's error number, where there was one.
    """

    def __init__(
        self, reason: str, detail: str = "", where: bytes = b"", code: int = IO, errno: int | None = None
    ) -> None:
        super().__init__(reason, detail, where, code)
        self.reason = reason
        self.detail = detail
        self.where = where
        self.code = code
        self.errno = errno
        self.user = b""


class Table(Protocol[K, V]):
    """Where facts come from.  A plain dict is one."""

    def get(self, key: K, /) -> V | None:
        """The value, or None if there is none.  Raises `Unavailable` if it cannot be told."""
        ...
