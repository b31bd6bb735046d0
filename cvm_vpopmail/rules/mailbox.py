"""Whether a mailbox could take a message now: its home, its maildir, its quotas.

Source: vdelivermail.c (deliver_mail), vpopmail.c (make_user_dir); mkdir(2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvm_qmail.answer import Answer, Table, Unavailable, Verdict
from cvm_vpopmail.accounts import Domain, View
from cvm_vpopmail.rules import quota
from cvm_vpopmail.rules.limits import Limits
from cvm_vpopmail.rules.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from cvm_vpopmail.settings import Vpopmail


def must_take(maildir: bytes, view: View) -> None:
    """Raises `Unavailable` if no message could be put into the maildir now."""
    for directory in (b"tmp", b"new"):
        path = b"%s/%s" % (maildir.rstrip(b"/"), directory)
        if not view.writable(path):
            raise Unavailable("maildir", "is missing, or its owner may not write there", path)


def can_make(home: bytes, domain: Domain, view: View) -> bool:
    """Whether vpopmail can make a home that is missing: below the domain's directory only, and as mkdir(2) can.

    On a dangling symbolic link mkdir(2) fails with EEXIST, and nothing can be made behind one.
    """
    if not home.startswith(domain.directory + b"/"):
        return False
    missing, parent = home, home.rpartition(b"/")[0]
    while parent and view.status(parent) is None:
        missing, parent = parent, parent.rpartition(b"/")[0]
    return view.writable(parent or b"/") and not view.is_link(missing)


class Maildirs:
    """The maildirs of one delivery, each judged once."""

    def __init__(self, view: View, limits: Table[Domain, Limits], now: Callable[[], float], policy: Vpopmail) -> None:
        """`now`: seconds since the epoch."""
        self._view = view
        self._limits = limits
        self._now = now
        self._policy = policy
        self._judged: dict[tuple[bytes, bytes | None], Outcome | None] = {}

    def deliver(self, maildir: bytes, limit: bytes | None, domain: Domain | None) -> Outcome | None:
        """A delivery there; None if it succeeds.  Raises `Unavailable`.

        `limit`: the text of its quota; None: its own.  `domain`: the one whose quota counts as well.
        """
        key = maildir, limit
        if key not in self._judged:
            self._judged[key] = self._judge(maildir, limit, domain)
        return self._judged[key]

    def _judge(self, maildir: bytes, limit: bytes | None, domain: Domain | None) -> Outcome | None:
        if self._policy.overquota != "accept" and self._is_full(maildir, limit, domain):
            if self._policy.overquota == "temp":
                raise Unavailable("over-quota", "mailbox is over quota", maildir)
            return Outcome(Answer(Verdict.REJECTED, "over-quota", where=maildir))
        must_take(maildir, self._view)
        return None

    def _is_full(self, maildir: bytes, limit: bytes | None, domain: Domain | None) -> bool:
        size = self._policy.message_bytes
        if quota.over(maildir, limit, size, self._view, self._now):
            return True
        if not self._policy.domain_quotas or domain is None:
            return False
        limits = self._limits.get(domain)
        return limits is not None and quota.domain_over(domain.directory, limits, size, self._view)
