"""Whether a login succeeds, by vchkpw's rules.

    name        valid; in a domain that vpopmail knows      else invalid-username; out of scope
    account     exists                                      else no-account
    proof       right                                       else wrong-password
    service     not closed by flags or limits               else service-forbidden
    home        exists or can be made (pop3, imap, webmail) else home-not-made

Invariants: an unknown account takes as long as a wrong password.  Any question to the disk or a database may raise
`Unavailable`, which is a temporary failure.

Source: vchkpw.c (login_virtual_user).
"""

from __future__ import annotations

from cvm_qmail.answer import Answer, Facts, Recipient, Verdict
from cvm_qmail.passwords import TimingEqualizer
from cvm_qmail.plugin import Proof
from cvm_qmail.tables.door import FileAccess, Rights
from cvm_qmail.tables.file_access import as_user_or_self
from cvm_vpopmail.accounts import Account, Domain
from cvm_vpopmail.host import Host
from cvm_vpopmail.rules import login
from cvm_vpopmail.rules.mailbox import can_make


def facts(account: Account, domain: Domain, asked: bytes | None) -> Facts:
    """The facts of an accepted account; `asked`: the domain's name as the client sent it."""
    return Facts(
        username=account.name,
        userid=domain.uid,
        groupid=domain.gid,
        realname=account.gecos,
        directory=account.directory,
        shell=account.quota,
        domain=asked,
        mailbox=account.directory + b"/Maildir/",
    )


class Authentication:
    """A `plugin.Authenticate`: logins on the service of the settings."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._service = host.policy.service
        self._equalizer = TimingEqualizer(self._service)

    def __call__(self, recipient: Recipient, proof: Proof) -> Answer:
        """Whether `proof` is right for the account and this service.  Raises `Unavailable`."""
        host = self._host
        user, name = self._login(recipient)
        mark = b"login %s@%s" % (user, name)
        host.tables.mark(mark)  # a costly hash may exceed the deadline
        if not user or not login.valid(user, name):
            self._equalizer.spend(name, proof)
            return Answer(Verdict.REJECTED, "invalid-username", user)
        domain = host.domains.get(name)
        if domain is None:
            self._equalizer.spend(name, proof)
            return Answer(Verdict.OUT_OF_SCOPE, "not-ours", user)
        account = self._account(domain, name, user)
        host.tables.mark(mark)
        if account is None:
            self._equalizer.spend(domain.name, proof)
            return Answer(Verdict.REJECTED, "no-account", user)
        if not self._equalizer.verify(domain.name, account.secret, proof):
            return Answer(Verdict.REJECTED, "wrong-password", user)
        found = facts(account, domain, recipient.domain or name)
        return self._forbidden(account, domain, user) or Answer(
            Verdict.ACCEPTED, "login", user, account.directory, found
        )

    def _login(self, recipient: Recipient) -> login.Login:
        """The user, and the domain: the default one where none was given."""
        given = login.address(recipient)
        if given.domain:
            return given
        default = self._host.policy.default_domain
        return given._replace(domain=self._host.default_domain() if default is None else default)

    def _account(self, domain: Domain, given: bytes, user: bytes) -> Account | None:
        """Looked up as the domain's owner, else as this process: vchkpw is root."""
        host = self._host
        if host.backend.logins is not None:
            return host.backend.logins.get((domain, given, user))

        def look(access: FileAccess) -> Account | None:
            return host.backend.accounts(access, True).get((domain, user))

        return as_user_or_self(host.tables, Rights(domain.uid, domain.gid), domain.directory, look)

    def _forbidden(self, account: Account, domain: Domain, user: bytes) -> Answer | None:
        """Why an account with the right password cannot log in; None: it can."""
        flags = account.flags | login.limit_flags(account.flags, self._host.backend.limits.get(domain))
        if login.forbidden(self._service, flags):
            return Answer(Verdict.REJECTED, "service-forbidden", user)
        if self._service in login.NEEDS_HOME and not self._has_home(account, domain):
            return Answer(Verdict.REJECTED, "home-not-made", user, account.directory)
        return None

    def _has_home(self, account: Account, domain: Domain) -> bool:
        """Whether the home exists or can be made, with the rights of the domain's owner."""
        home = account.directory
        if not home:
            return self._host.policy.assigns_homes

        def look(access: FileAccess) -> bool:
            view = self._host.view(access)
            return view.status(home) is not None or can_make(home, domain, view)

        return self._host.tables.as_user(Rights(domain.uid, domain.gid), domain.directory, look)
