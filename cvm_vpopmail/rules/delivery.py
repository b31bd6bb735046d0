"""What becomes of a message that a .qmail file hands over to vdelivermail, and what the file's other lines do.

    deciding .qmail file        line by line: program, maildir, mbox, forward     (qmail-local)
      vdelivermail '' ARG
        SQL aliases             their rows are lines of vdelivermail's own
        account                 locked; home; its .qmail; default delivery; maildir with its quota
        no account              ARG: bounce-no-mailbox, delete, a home, or a line of vdelivermail's own

Law: nothing found in a file is run.  Of programs only ``exit N`` and vdelivermail itself are
understood; any other is taken to accept.  Lines are carried out in order, and the first that fails
decides.  A delivery succeeds when its maildir could take a message now.  Who writes these files is not
trusted: there are bounds to what is looked at for one address, and no line of a file is shown.

Source: vdelivermail.c, vpopmail.c (vget_real_domain, vauth_getpw), dot-qmail(5), qmail-local.c;
checked against the running programs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cvm_qmail.answer import Answer, Table, Unavailable, Verdict
from cvm_qmail.rules import dotqmail
from cvm_vpopmail.accounts import Account, Domain, Flag, Sight
from cvm_vpopmail.rules import quota, shell
from cvm_vpopmail.rules.limits import Limits
from cvm_vpopmail.rules.names import valid_domain, valid_user
from cvm_vpopmail.rules.records import is_domain_record

if TYPE_CHECKING:
    from cvm_qmail.lookups import Delivery
    from cvm_vpopmail.settings import Vpopmail

NAME_LIMIT = 156
"""Bytes to which vdelivermail cuts user and host."""

_DASH = re.compile(b"-")

BOUNCES = frozenset({64, 65, 70, 76, 77, 78, 100, 112})
"""Exit statuses of a program that make the message bounce."""

STOP = 99
"""Exit status with which a program ends the delivery, done."""

BOUNCE = b"bounce-no-mailbox"
DELETE = b"delete"

RUNS = 8
"""How often vdelivermail is followed for one delivery: it may be run from lines of its own."""

ACTIONS = 1000
"""Different lines for programs and mailboxes that are followed for one delivery."""

REPEATED = 200_000
"""Lines for programs and mailboxes, of which many may be the same."""

_ACTION = re.compile(rb"^[|./][^\n]*", re.MULTILINE)


class Places(NamedTuple):
    """What vdelivermail asks, as the user it runs under."""

    domains: Table[bytes, Domain]
    """users/cdb, by name in lower case."""
    accounts: Table[tuple[Domain, bytes], Account]
    aliases: Table[tuple[bytes, bytes], Sequence[bytes]] | None
    """SQL aliases by name of the domain and name; None: this build has none."""
    limits: Table[Domain, Limits]
    sight: Sight
    uid: int
    qmail_root: bytes
    now: Callable[[], float]
    """Seconds since the epoch."""


class Outcome(NamedTuple):
    """What vdelivermail says, and whose mail it is."""

    answer: Answer
    stops: bool = False
    """Whether a program ended the whole delivery, done."""
    account: Account | None = None
    domain: Domain | None = None


def judge(delivery: Delivery, places: Places, policy: Vpopmail) -> Outcome | None:
    """What becomes of a message to the deciding .qmail file; None if that is qmail's business alone.

    Raises `Unavailable` where the delivery would be deferred.
    """
    content = delivery.file.file.content
    if content is None:
        raise Unavailable("dotqmail-unread", "its lines decide, and cannot be read", delivery.file.name)
    whole = is_domain_record(delivery.user, delivery.local)
    vdelivermail = _Vdelivermail(delivery, places, policy)
    lines = [line.rstrip(b" \t") for line in vdelivermail.actions(_actions(content))]
    if whole and policy.only_bouncing and delivery.file.name == b".qmail-default" and not _bounces(lines):
        return Outcome(Answer(Verdict.ACCEPT, "unchecked"))
    outcome: Outcome | None = None
    for line in lines:
        arguments = shell.vdelivermail(line[1:]) if line.startswith(b"|") else None
        if arguments is not None:
            outcome = vdelivermail.run(arguments)
            if outcome.stops or outcome.answer.verdict is not Verdict.ACCEPT:
                return outcome
        elif whole:
            ended = _line_of_qmail_local(line, delivery.user.home, places.sight)
            if ended is not None:
                return ended
    if whole and not content:
        _must_take(b"%s/Maildir" % delivery.user.home, places.sight)
    if outcome is None and whole:
        return Outcome(Answer(Verdict.ACCEPT, "dotqmail-default" if delivery.file.default else "dotqmail"))
    return outcome


def _actions(content: bytes) -> Iterator[bytes]:
    """The lines of a file that are more than a comment or an address."""
    return (match[0] for match in _ACTION.finditer(content))


def _bounces(lines: Sequence[bytes]) -> bool:
    """Whether vdelivermail is told to bounce what is for no account."""
    return any(line.startswith(b"|") and (shell.vdelivermail(line[1:]) or ())[1:] == (BOUNCE,) for line in lines)


def _line_of_qmail_local(line: bytes, home: bytes, sight: Sight) -> Outcome | None:
    """One line that is not vdelivermail's; None: the next one."""
    if line.startswith(b"|"):
        return _program(line[1:])
    if line.startswith((b"/", b".")) and line.endswith(b"/"):
        _must_take(_join(home, line.partition(b"\0")[0]), sight)
    return None


def _program(command: bytes) -> Outcome | None:
    """What a program's exit status means, where that can be known; None: the next line."""
    status = shell.exit_status(command)
    if not status:
        return None
    if status == STOP:
        return Outcome(Answer(Verdict.ACCEPT, "program"), stops=True)
    if status in BOUNCES:
        return Outcome(Answer(Verdict.REJECT, "program-bounces"))
    raise Unavailable("program-defers", f"exit {status}")


def _must_take(maildir: bytes, sight: Sight) -> None:
    """Raises `Unavailable` if no message could be put into the maildir now."""
    for folder in (b"tmp", b"new"):
        path = b"%s/%s" % (maildir.rstrip(b"/"), folder)
        if not sight.writable(path):
            raise Unavailable("maildir", "is missing, or its owner may not write there", path)


def _join(folder: bytes, path: bytes) -> bytes:
    return path if path.startswith(b"/") else b"%s/%s" % (folder, path)


def _alias_names(user: bytes, *, qmail_ext: bool) -> Iterator[bytes]:
    """The names that are looked for among SQL aliases, in order."""
    yield user
    end = user.rfind(b"-")
    while end >= 0:
        yield user[: end + 1] + b"default"
        end = user.rfind(b"-", 0, end)
    if qmail_ext and b"-" in user:
        yield user.partition(b"-")[0]


def can_make(home: bytes, domain: Domain, sight: Sight) -> bool:
    """Whether vpopmail can make a home that is not there: below the domain's directory only."""
    if not home.startswith(domain.directory + b"/"):
        return False
    parent = home
    while (parent := parent.rpartition(b"/")[0]) and sight.status(parent) is None:
        pass
    return sight.writable(parent or b"/")


class _Vdelivermail:
    """vdelivermail for one delivery."""

    def __init__(self, delivery: Delivery, places: Places, policy: Vpopmail) -> None:
        self._places = places
        self._policy = policy
        self._runs = 0
        self._followed = 0
        self._different: set[bytes] = set()
        self._maildirs: dict[tuple[bytes, bytes | None], Outcome | None] = {}
        self._user = delivery.ext.lower()[:NAME_LIMIT]
        self._host = delivery.host.lower()[:NAME_LIMIT]
        self._folder = delivery.user.home
        """The current directory it starts in."""

    def actions(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Those of the lines that are more than a comment or an address.  Raises `Unavailable` for too many."""
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
        """What it says.  Raises `Unavailable` where it defers."""
        self._runs += 1
        if self._runs > RUNS:
            raise Unavailable("vdelivermail-loop", "vdelivermail runs vdelivermail again and again")
        if len(arguments) != 2:
            raise Unavailable("vdelivermail-arguments", f"vdelivermail has {len(arguments)} arguments, expected 2")
        if not valid_user(self._user) or not valid_domain(self._host):
            return Outcome(Answer(Verdict.REJECT, "invalid-username"))
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
                return self._lines(lines, self._folder, None) or Outcome(Answer(Verdict.ACCEPT, "sql-alias"))
        return None

    def _account(self, domain: Domain) -> Account | None:
        if self._places.uid not in (0, domain.uid):  # vpopmail takes every account for missing then
            raise Unavailable(
                "owner", f"mail is delivered by uid {self._places.uid}, the domain is of uid {domain.uid}"
            )
        account = self._places.accounts.get((domain, self._user))
        if account is None and self._policy.qmail_ext and b"-" in self._user:
            account = self._places.accounts.get((domain, self._user.partition(b"-")[0]))
        return account

    def _as_older_checks(self, domain: Domain) -> Outcome | None:
        """What chkusr's and chkuser's rules accept besides, where settings ask for them."""
        if self._policy.tmda:
            for dash in _DASH.finditer(self._user):
                account = self._places.accounts.get((domain, self._user[: dash.start()]))
                if account is not None:
                    return self._locked(account) or Outcome(Answer(Verdict.ACCEPT, "tmda"))
        if self._policy.ezmlm_directory and b"/" not in self._user:
            for dash in reversed(list(_DASH.finditer(self._user))):
                editor = b"%s/%s/editor" % (domain.directory, self._user[: dash.start()])
                if self._places.sight.file(editor) is not None:
                    return Outcome(Answer(Verdict.ACCEPT, "ezmlm-directory", where=editor))
        return None

    # -- an account -------------------------------------------------------------------------------

    def _locked(self, account: Account) -> Outcome | None:
        if not account.flags & Flag.BOUNCE_MAIL:
            return None
        verdict = Verdict.ACCEPT if self._policy.locked == "accept" else Verdict.REJECT
        return Outcome(Answer(verdict, "locked"))

    def _to_account(self, account: Account, domain: Domain) -> Outcome:
        locked = self._locked(account)
        if locked is not None:
            return locked
        if not account.directory:
            if self._policy.backend == "cdb":
                return Outcome(Answer(Verdict.REJECT, "home-not-made"))
            return Outcome(Answer(Verdict.ACCEPT, "account"))  # it is made, and stored
        home = _join(self._folder, account.directory)
        sight = self._places.sight
        if sight.status(home) is None:
            if can_make(account.directory, domain, sight):
                return Outcome(Answer(Verdict.ACCEPT, "account", where=home))
            return Outcome(Answer(Verdict.REJECT, "home-not-made", where=home))
        folder = home if sight.enters(home) else self._folder
        outcome = self._dotqmail(folder) or self._default_delivery(folder)
        if outcome is not None:
            return outcome
        if not account.directory.startswith((b"/", b".")):
            return Outcome(Answer(Verdict.ACCEPT, "account"))  # taken for a mail address
        maildir = b"%s/Maildir" % _join(folder, account.directory)
        return self._maildir(maildir, account.quota, domain) or Outcome(Answer(Verdict.ACCEPT, "account", where=home))

    def _dotqmail(self, folder: bytes) -> Outcome | None:
        """What a .qmail file in a home (or where vdelivermail is, if it cannot enter that) decides."""
        for name in self._dotqmail_names():
            path = b"%s/%s" % (folder, name)
            content = self._places.sight.file(path)
            if content is not None:
                if not content:
                    return None
                outcome = self._lines(_actions(content), folder, path)
                return outcome or Outcome(Answer(Verdict.ACCEPT, "account-dotqmail", where=path))
        return None

    def _dotqmail_names(self) -> Iterator[bytes]:
        extension = self._user.partition(b"-")[2] if self._policy.qmail_ext else b""
        if extension:
            for name, _ in dotqmail.names(b"-", extension):
                yield name
        yield b".qmail"

    def _default_delivery(self, folder: bytes) -> Outcome | None:
        if not self._policy.default_delivery:
            return None
        path = self._places.qmail_root + b"/control/defaultdelivery"
        content = self._places.sight.file(path)
        if not content:
            return None
        lines = [line for line in content.removesuffix(b"\n").split(b"\n") if not line.startswith(b"#")]
        own = next((at for at, line in enumerate(lines) if b"vdelivermail" in line), None)
        outcome = self._lines(lines[:own], folder, path)
        if outcome is None and lines and own is None:
            outcome = Outcome(Answer(Verdict.ACCEPT, "default-delivery", where=path))
        return outcome  # None: the maildir, after those lines that stand before vdelivermail's

    # -- no account -------------------------------------------------------------------------------

    def _catch_all(self, argument: bytes, domain: Domain | None) -> Outcome:
        if argument == BOUNCE:
            return Outcome(Answer(Verdict.REJECT, "no-account"))
        if argument == DELETE:
            verdict = Verdict.ACCEPT if self._policy.delete == "accept" else Verdict.REJECT
            return Outcome(Answer(verdict, "catch-all-delete"))
        if argument.startswith(b"/"):
            folder = argument if self._places.sight.enters(argument) else self._folder
            outcome = self._dotqmail(folder) or self._maildir(argument.rstrip(b"/") + b"/Maildir", None, domain)
        else:
            outcome = self._lines([argument], self._folder, None)
        return outcome or Outcome(Answer(Verdict.ACCEPT, "catch-all"))

    # -- lines and maildirs -----------------------------------------------------------------------

    def _lines(self, lines: Iterable[bytes], folder: bytes, file: bytes | None) -> Outcome | None:
        """Delivery lines of vdelivermail's own; None if all succeed.  A comment or an address always does."""
        for line in self.actions(lines):
            outcome = self._line(line.partition(b"\0")[0], folder, file)  # as C reads it
            if outcome is not None:
                if file is not None and not outcome.answer.where:
                    outcome = outcome._replace(answer=outcome.answer._replace(where=file))
                return outcome
        return None

    def _line(self, line: bytes, folder: bytes, file: bytes | None) -> Outcome | None:
        if line.startswith(b"|"):
            arguments = shell.vdelivermail(line[1:])
            if arguments is None:
                return _program(line[1:])
            return self._again(arguments)
        if not line.endswith(b"/"):  # not shown: the "file" may be a link to one with a password in it
            raise Unavailable("mbox", "vdelivermail cannot deliver to an mbox", file or b"")
        return self._maildir(_join(folder, line), None, self._places.domains.get(self._host))

    def _again(self, arguments: Sequence[bytes]) -> Outcome | None:
        outcome = self.run(arguments)
        if outcome.stops or outcome.answer.verdict is not Verdict.ACCEPT:
            return outcome
        return None

    def _maildir(self, maildir: bytes, limit: bytes | None, domain: Domain | None) -> Outcome | None:
        """A delivery to a maildir; None if it succeeds.  `limit` None: its own."""
        key = maildir, limit
        if key not in self._maildirs:
            self._maildirs[key] = self._judge_maildir(maildir, limit, domain)
        return self._maildirs[key]

    def _judge_maildir(self, maildir: bytes, limit: bytes | None, domain: Domain | None) -> Outcome | None:
        size = self._policy.message_bytes
        sight = self._places.sight
        if self._policy.overquota != "accept":
            over = quota.over(maildir, limit, size, sight, self._places.now)
            if not over and self._policy.domain_quotas and domain is not None:
                limits = self._places.limits.get(domain)
                over = limits is not None and quota.domain_over(domain.directory, limits, size, sight)
            if over:
                if self._policy.overquota == "temp":
                    raise Unavailable("over-quota", "mailbox is over quota", maildir)
                return Outcome(Answer(Verdict.REJECT, "over-quota", where=maildir))
        _must_take(maildir, sight)
        return None
