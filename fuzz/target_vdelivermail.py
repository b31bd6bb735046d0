"""Any bytes as a .qmail file around vdelivermail, or as its catch-all: an outcome or `Unavailable`, never more.

The file of a user's home is judged as a reading line by line judges it, in which a line ends at a NUL as
C's strings do; lines that run vdelivermail again are left to the tests.  Nothing asked of the disk
holds a NUL, and nothing is asked of it without end.
"""

from __future__ import annotations

import re

from disk import NOW, Asking, Disk, Node
from vmemory import policy_of

from cvm_qmail.answer import Recipient, Unavailable, Verdict
from cvm_qmail.plugin import Delivery
from cvm_qmail.rules.dotqmail import DotQmail, Found
from cvm_qmail.rules.users import User
from cvm_qmail.tables.rights import Rights
from cvm_vpopmail.accounts import Account, Domain
from cvm_vpopmail.rules.delivery import judge
from cvm_vpopmail.rules.limits import Limits
from cvm_vpopmail.rules.vdelivermail import Places

SEEDS = [
    b"\0&ann@example.org\nbob\n\n# x\n",
    b"\0./Maildir/\n./Mailbox\n/v/d/bob/Maildir/\n",
    b"\0|exit 99\n|exit 100\n|exit 111\n| exit 0 ;\n|/bin/prog 'a b'\n",
    b"\0./a\0b/\n|exit 100\0\n",
    b"\0|preline /v/bin/vdelivermail '' delete\n",
    b"\1./Maildir/ \t\n|vdelivermail '' bounce-no-mailbox\n&x\n",
    b"\1|exit 5\n|vdelivermail\n+list\n",
    b"\1./a\0/\n",
    b"\2/v/d/bob",
    b"\2./bob/Maildir/",
    b"\2ann@example.org' x",
]

HOME = b"/v/d/bob"
DOMAIN = Domain(b"d.example", 89, 89, b"/v/d")
RIGHTS = Rights(89, 89)
POLICY = policy_of(CVM_VPOPMAIL_QMAIL_EXT="1", CVM_VPOPMAIL_OVERQUOTA="reject")
DIRECTORIES = {b"/", b"/v", b"/v/d", HOME, *(HOME + b"/Maildir" + part for part in (b"", b"/tmp", b"/new", b"/cur"))}
CALLS = 20_000
"""What the disk may be asked for one delivery of at most 4,096 bytes of lines."""


class Counted(Disk):
    """A disk that hears what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def find(self, path: bytes, rights: Rights) -> tuple[bytes, Node]:
        """See `Disk`."""
        self.calls += 1
        assert b"\0" not in path, path
        return super().find(path, rights)


class NoSecret:
    """What a delivery never asks."""

    def verify(self, *_: object) -> bool:
        """Never asked."""
        raise AssertionError


BOB = Account(b"bob", 0, b"", HOME, b"NOQUOTA", NoSecret())


def world() -> Counted:
    """The domain's directory, bob's home and maildir."""
    disk = Counted()
    disk.directory(b"/v/d", HOME, mode=0o700, uid=89)
    disk.maildir(HOME + b"/Maildir", 89)
    return disk


def outcome(disk: Disk, user: bytes, lines: bytes) -> str:
    """The mark of the answer to user@d.example, whose deciding file has these lines."""
    own = User(b"d.example", 89, 89, b"/v/d", b"-", user, b"!d.example-")
    found = Found(b".qmail-default", DotQmail(0o600, lines), default=True)
    delivery = Delivery(Recipient(user, b"d.example"), own, b"-", user, b"d.example", found, b"d.example-" + user)
    places = Places(
        {b"d.example": DOMAIN},
        {(DOMAIN, b"bob"): BOB},
        None,
        Asking(lambda _: Limits()),
        disk.seen_by(RIGHTS),
        89,
        b"/q",
        lambda: float(NOW),
    )
    try:
        result = judge(delivery, places, POLICY)
    except Unavailable:
        return "?"
    assert result is not None, "in the domain's own directory every line counts"
    assert result.answer.verdict in (Verdict.ACCEPTED, Verdict.REJECTED)
    return result.answer.verdict.value


def check(data: bytes) -> None:
    """See the head of this file.  The first byte says what the rest is."""
    kind, text = data[:1], data[1:]
    disk = world()
    if kind == b"\1":
        for user in (b"bob", b"nobody", b"bob-x"):
            outcome(disk, user, text)
    elif kind == b"\2":
        outcome(disk, b"nobody", b"|vdelivermail '' '%s'\n" % text.replace(b"\n", b""))
    else:
        disk.file(HOME + b"/.qmail", text, uid=89)
        said = outcome(disk, b"bob", b"|vdelivermail '' delete\n")
        if b"vdelivermail" not in text:
            assert said == expected(text), (said, expected(text))
    assert disk.calls < CALLS


def expected(text: bytes) -> str:
    """A line at a time, as vdelivermail reads."""
    for raw in text.split(b"\n"):
        line = raw.partition(b"\0")[0]
        if line[:1] == b"|":
            program = re.fullmatch(rb"[ \t]*exit[ \t]*([ \t][0-9]{1,9})?[ \t]*;?[ \t]*", line[1:])
            status = int(program[1] or b"0") % 256 if program else 0
            if status == 99:
                return "+"
            if status in (64, 65, 70, 76, 77, 78, 100, 112):
                return "-"
            if status:
                return "?"
        elif line[:1] in (b".", b"/") and line and not _is_there(line):
            return "?"
    return "+"


def _is_there(line: bytes) -> bool:
    """Whether the line names bob's maildir, however it is written."""
    if not line.endswith(b"/"):
        return False
    names: list[bytes] = []
    for name in (line if line.startswith(b"/") else HOME + b"/" + line).split(b"/"):
        if name == b"..":
            names[-1:] = []
        elif name not in (b"", b"."):
            names.append(name)
        if b"/" + b"/".join(names) not in DIRECTORIES:
            return False
    return names == [b"v", b"d", b"bob", b"Maildir"]
