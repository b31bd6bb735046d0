"""What vdelivermail does with a message.

    SQL aliases             their rows are lines of vdelivermail's own
    account                 locked; home; its .qmail; default delivery; maildir with its quota
    no account              ARG: bounce-no-mailbox, delete, a home, or a line of vdelivermail's own

Invariants: nothing found in a file is run.  The writers of these files are not trusted: there are limits to what is
read for one address, and no line of a file is shown.

Source: vdelivermail.c, vpopmail.c (vget_real_domain, vauth_getpw); checked against the running programs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cvm_qmail.answer import Answer, Table, Unavailable, Verdict
from cvm_qmail.rules import dotqmail
from cvm_vpopmail.accounts import Account, Domain, Flag, View
from cvm_vpopmail.rules import shell
from cvm_vpopmail.rules.limits import Limits
from cvm_vpopmail.rules.mailbox import Maildirs, can_make
from cvm_vpopmail.rules.names import valid_domain, valid_user
from cvm_vpopmail.rules.outcome import Outcome, of_program

if TYPE_CHECKING:
    from cvm_qmail.plugin import Delivery
    from cvm_vpopmail.settings import Vpopmail

NAME_LIMIT = 156
"""Bytes to which vdelivermail cuts user and host."""

_DASH = re.compile(b"-")

BOUNCE = b"bounce-no-mailbox"
DELETE = b"delete"

RUNS = 8
"""How often vdelivermail is followed for one delivery: its own lines may run it again."""

ACTIONS = 1000
"""The number of different lines for programs and mailboxes that are followed for one delivery."""

REPEATED = 200_000
"""The number of lines for programs and mailboxes, equal ones included."""

_ACTION = re.compile(rb"^[|./][^\n]*", re.MULTILINE)


class Places(NamedTuple):
    """The lookups of vdelivermail, with the rights of the user under which it runs."""

    domains: Table[bytes, Domain]
    """users/cdb, by name in lower case."""
    accounts: Table[tuple[Domain, bytes], Account]
    aliases: Table[tuple[bytes, bytes], Sequence[bytes]] | None
    """SQL aliases by name of the domain and name; None: this build has none."""
    limits: Table[Domain, Limits]
    view: View
    uid: int
    qmail_root: bytes
    now: Callable[[], float]
    """Seconds since the epoch."""
    branch: bool = False
    """Whether qmail-local has the qmail-branch patch."""


def actions_in(content: bytes) -> Iterator[bytes]:
    """The lines of a file that are not comments or addresses."""
    return (match[0] for match in _ACTION.finditer(content))


def _forwards(lines: Iterable[bytes]) -> tuple[bytes, ...]:
    """The addresses in vdelivermail's own lines if they do nothing but forward; empty otherwise."""
    found = []
    for line in lines:
        address = line.partition(b"\0")[0].strip(b" \t\r").removeprefix(b"&")
        if line.startswith(b"#") or not address:
            continue
        if b"@" not in address or line.startswith((b"|", b".", b"/")):
            return ()
        found.append(address)
    return tuple(found)


def join(directory: bytes, path: bytes) -> bytes:
    """A path as it is seen from `directory`."""
    return path if path.startswith(b"/") else b"%s/%s" % (directory, path)


def _alias_names(user: bytes, *, qmail_ext: bool) -> Iterator[bytes]:
    """The names that are looked up among SQL aliases, in order."""
    yield user
    end = user.rfind(b"-")
    while end >= 0:
        yield user[: end + 1] + b"default"
        end = user.rfind(b"-", 0, end)
    if qmail_ext and b"-" in user:
        yield user.partition(b"-")[0]


class Vdelivermail:
    """vdelivermail for one delivery."""

    def __init__(self, delivery: Delivery, places: Places, policy: Vpopmail) -> None:
        self._places = places
        self._policy = policy
        self._runs = 0
        self._followed = 0
        self._different: set[bytes] = set()
        self._maildirs = Maildirs(places.view, places.limits, places.now, policy)
        self._user = delivery.ext.lower()[:NAME_LIMIT]
        self._host = delivery.host.lower()[:NAME_LIMIT]
        self._directory = delivery.user.home
        """The current directory it starts in."""

    def actions(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """The lines that are not comments or addresses.  Raises `Unavailable` for too many."""
        for line in lines:
            if line.startswith((b"|", b".", b"/")):
                self._followed += 1
                self._different.add(line)
                if len(self._different) > ACTIONS or self._followed > REPEATED:
                    raise Unavailable(
                        "too-many-lines", f"more than {ACTIONS} different lines for programs and mailboxes"
                    )
                yield line

    def run(self, arguments: Sequence[bytes]) -> Outcome:
        """The answer of vdelivermail.  Raises `Unavailable` where it defers."""
        self._runs += 1
        if self._runs > RUNS:
            raise Unavailable("vdelivermail-loop", "vdelivermail runs itself in a loop")
        if len(arguments) != 2:
            raise Unavailable("vdelivermail-arguments", f"vdelivermail has {len(arguments)} arguments, expected 2")
        if not valid_user(self._user) or not valid_domain(self._host):
            return Outcome(Answer(Verdict.REJECTED, "invalid-username"))
        domain = self._places.domains.get(self._host)
        outcome = self._aliases(self._host if domain is None else domain.name)
        if outcome is not None:
            return outcome
        if domain is not None:
            account = self._account(domain)
            if account is not None:
                return self._to_account(account, domain)._replace(account=account, domain=domain)
            outcome = self._as_older_checks(domain)
            if outcome is not None:
                return outcome
        return self._catch_all(arguments[1], domain)

    def _aliases(self, domain: bytes) -> Outcome | None:
        aliases = self._places.aliases
        if aliases is None:
            return None
        for name in _alias_names(self._user, qmail_ext=self._policy.qmail_ext):
            lines = aliases.get((domain, name))
            if lines:
                answer = Answer(Verdict.ACCEPTED, "sql-alias", forwards=_forwards(lines))
                return self._lines(lines, self._directory, None) or Outcome(answer)
        return None

    def _account(self, domain: Domain) -> Account | None:
        if self._places.uid not in (0, domain.uid):  # then vpopmail finds no account
            raise Unavailable(
                "owner", f"mail is delivered by uid {self._places.uid}, the domain is of uid {domain.uid}"
            )
        account = self._places.accounts.get((domain, self._user))
        if account is None and self._policy.qmail_ext and b"-" in self._user:
            account = self._places.accounts.get((domain, self._user.partition(b"-")[0]))
        return account

    def _as_older_checks(self, domain: Domain) -> Outcome | None:
        """Additional acceptances by the rules of chkusr and chkuser, if settings enable them."""
        if self._policy.tmda:
            for dash in _DASH.finditer(self._user):
                account = self._places.accounts.get((domain, self._user[: dash.start()]))
                if account is not None:
                    return self._locked(account) or Outcome(Answer(Verdict.ACCEPTED, "tmda"))
        if self._policy.ezmlm_directory and b"/" not in self._user:
            for dash in reversed(list(_DASH.finditer(self._user))):
                editor = b"%s/%s/editor" % (domain.directory, self._user[: dash.start()])
                if self._places.view.file(editor) is not None:
                    return Outcome(Answer(Verdict.ACCEPTED, "ezmlm-directory", where=editor))
        return None

    # -- an account -------------------------------------------------------------------------------

    def _locked(self, account: Account) -> Outcome | None:
        if not account.flags & Flag.BOUNCE_MAIL:
            return None
        verdict = Verdict.ACCEPTED if self._policy.locked == "accept" else Verdict.REJECTED
        return Outcome(Answer(verdict, "locked"))

    def _to_account(self, account: Account, domain: Domain) -> Outcome:
        locked = self._locked(account)
        if locked is not None:
            return locked
        if not account.directory:
            if self._policy.assigns_homes:
                return Outcome(Answer(Verdict.ACCEPTED, "account"))
            return Outcome(Answer(Verdict.REJECTED, "home-not-made"))
        home = join(self._directory, account.directory)
        view = self._places.view
        if view.status(home) is None:
            if can_make(account.directory, domain, view):
                return Outcome(Answer(Verdict.ACCEPTED, "account", where=home))
            return Outcome(Answer(Verdict.REJECTED, "home-not-made", where=home))
        directory = home if view.enters(home) else self._directory
        outcome = self._dotqmail(directory) or self._default_delivery(directory)
        if outcome is not None:
            return outcome
        if not account.directory.startswith((b"/", b".")):
            return Outcome(Answer(Verdict.ACCEPTED, "account"))  # treated as a mail address
        maildir = b"%s/Maildir" % join(directory, account.directory)
        return self._maildirs.deliver(maildir, account.quota, domain) or Outcome(
            Answer(Verdict.ACCEPTED, "account", where=home)
        )

    def _dotqmail(self, directory: bytes) -> Outcome | None:
        """The result of a .qmail file in a home (or in the current directory, if the home cannot be entered)."""
        for name in self._dotqmail_names():
            path = b"%s/%s" % (directory, name)
            content = self._places.view.file(path)
            if content is not None:
                if not content:
                    return None
                outcome = self._lines(actions_in(content), directory, path)
                forwards = _forwards(content.split(b"\n"))
                return outcome or Outcome(Answer(Verdict.ACCEPTED, "account-dotqmail", where=path, forwards=forwards))
        return None

    def _dotqmail_names(self) -> Iterator[bytes]:
        extension = self._user.partition(b"-")[2] if self._policy.qmail_ext else b""
        if extension:
            for name, _ in dotqmail.names(b"-", extension):
                yield name
        yield b".qmail"

    def _default_delivery(self, directory: bytes) -> Outcome | None:
        if not self._policy.default_delivery:
            return None
        path = self._places.qmail_root + b"/control/defaultdelivery"
        content = self._places.view.file(path)
        if not content:
            return None
        lines = [line for line in content.removesuffix(b"\n").split(b"\n") if not line.startswith(b"#")]
        own = next((at for at, line in enumerate(lines) if b"vdelivermail" in line), None)
        outcome = self._lines(lines[:own], directory, path)
        if outcome is None and lines and own is None:
            outcome = Outcome(Answer(Verdict.ACCEPTED, "default-delivery", where=path))
        return outcome  # None: the maildir, after those lines that stand before vdelivermail's

    # -- no account -------------------------------------------------------------------------------

    def _catch_all(self, argument: bytes, domain: Domain | None) -> Outcome:
        if argument == BOUNCE:
            return Outcome(Answer(Verdict.REJECTED, "no-account"))
        if argument == DELETE:
            verdict = Verdict.ACCEPTED if self._policy.delete == "accept" else Verdict.REJECTED
            return Outcome(Answer(verdict, "catch-all-delete"))
        if argument.startswith(b"/"):
            directory = argument if self._places.view.enters(argument) else self._directory
            outcome = self._dotqmail(directory) or self._maildirs.deliver(
                argument.rstrip(b"/") + b"/Maildir", None, domain
            )
        else:
            outcome = self._lines([argument], self._directory, None)
            if outcome is None:
                return Outcome(Answer(Verdict.ACCEPTED, "catch-all", forwards=_forwards([argument])))
        return outcome or Outcome(Answer(Verdict.ACCEPTED, "catch-all"))

    # -- lines and maildirs -----------------------------------------------------------------------

    def _lines(self, lines: Iterable[bytes], directory: bytes, file: bytes | None) -> Outcome | None:
        """The result of vdelivermail's own lines; None if all succeed.  A comment or an address always does."""
        for line in self.actions(lines):
            outcome = self._line(line.partition(b"\0")[0], directory, file)  # up to a NUL, as in C
            if outcome is not None:
                if file is not None and not outcome.answer.where:
                    outcome = outcome._replace(answer=outcome.answer._replace(where=file))
                return outcome
        return None

    def _line(self, line: bytes, directory: bytes, file: bytes | None) -> Outcome | None:
        if line.startswith(b"|"):
            arguments = shell.vdelivermail(line[1:])
            if arguments is None:
                return of_program(line[1:])
            return self._again(arguments)
        if not line.endswith(b"/"):  # not shown: the "file" may be a link to one with a password in it
            raise Unavailable("mbox", "vdelivermail cannot deliver to an mbox", file or b"")
        return self._maildirs.deliver(join(directory, line), None, self._places.domains.get(self._host))

    def _again(self, arguments: Sequence[bytes]) -> Outcome | None:
        outcome = self.run(arguments)
        if outcome.stops or outcome.answer.verdict is not Verdict.ACCEPTED:
            return outcome
        return None
