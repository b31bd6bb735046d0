"""The types that everything shares: the question, the answer, and "unknown".

Invariants: three outcomes never mix.  A lookup returns an `Answer` (accepted, rejected, out of scope) or
raises `Unavailable`, which is neither yes nor no: the client has to try again later.  A table returns
a value, or None for "not there", or raises `Unavailable`.
"""

from enum import Enum
from typing import NamedTuple, Protocol, TypeVar

DRY_RUN = "dry run: this would be rejected"
"""What the log says of a rejection that CVM_DRY_RUN has turned into an acceptance."""

new = tuple.__new__
"""``new(Kind, (field, field))`` makes a NamedTuple of all its fields: five times cheaper than ``Kind(field, field)``.

For what every request makes; nothing checks the number of fields.
"""

K = TypeVar("K", contravariant=True)
V = TypeVar("V", covariant=True)


class Recipient(NamedTuple):
    """The address to look up.  `domain` None: none was given; empty: the address is ``account@``."""

    account: bytes
    domain: bytes | None

    @property
    def address(self) -> bytes:
        """The address as it is written."""
        return self.account if self.domain is None else b"%s@%s" % self


class Verdict(Enum):
    """The result of a lookup.  The value is the first character of its log line."""

    ACCEPTED = "+"
    REJECTED = "-"
    """It would bounce: code 100, out of scope 0."""
    OUT_OF_SCOPE = "="
    """Not an address of this host: code 100, out of scope 1.  Logged as ``-``, as the C program does."""

    @property
    def word(self) -> str:
        """What people read: "accepted", "rejected", "out of scope"."""
        return self.name.lower().replace("_", " ")


TEMPORARY_FAILURE = "temporary failure"
"""The same for a lookup that raised `Unavailable`."""


class Facts(NamedTuple):
    """The facts of an acceptance, in the order in which it is sent; None is left out.

    Clients require those in the first two lines and `directory`.
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
    """A verdict with its reason: an identifier of `reasons.REASONS`, the same in log, trace and metrics.

    `user` is the controlling user, `where` the deciding file or table; both may be empty.  `detail` is
    a human-readable addition for the log.
    """

    verdict: Verdict
    reason: str
    user: bytes = b""
    where: bytes = b""
    facts: Facts | None = None
    detail: str = ""
    forwards: tuple[bytes, ...] = ()
    """The addresses to which the mail is forwarded, if it goes nowhere else; empty: it may go elsewhere."""


class Kind(Enum):
    """Why there is no answer.  Each protocol has its own code or words for these."""

    TEMPORARY = "temporary"
    MISCONFIGURED = "misconfigured"
    """The server cannot answer such a request until an administrator changes a setting."""
    NO_CREDENTIAL = "no credential"
    """The request lacks a valid secret, or a password."""
    MALFORMED = "malformed"
    """The request could not be parsed."""
    TOO_LARGE = "too large"
    """The answer does not fit into a response."""


class Unavailable(Exception):
    """The answer is not known now: neither yes nor no.

    `reason` is an identifier of `reasons.REASONS`, `detail` is human-readable, `where` the file or table
    that failed, `errno` the system's error number, where there was one.  `user` is the controlling user
    if it was known by then.
    """

    def __init__(
        self,
        reason: str,
        detail: str = "",
        where: bytes = b"",
        kind: Kind = Kind.TEMPORARY,
        errno: int | None = None,
    ) -> None:
        super().__init__(reason, detail, where, kind)
        self.reason = reason
        self.detail = detail
        self.where = where
        self.kind = kind
        self.errno = errno
        self.user = b""


Outcome = Answer | Unavailable


class Table(Protocol[K, V]):
    """A table of facts.  A plain dict is one."""

    def get(self, key: K, /) -> V | None:
        """The value, or None if there is none.  Raises `Unavailable` if it cannot be determined."""
        ...
