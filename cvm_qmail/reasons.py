"""Every reason word: why an address got its outcome, and what an administrator can do about it.

A reason word is an identifier, the same in the log, in traces, in metrics and in the answers of the gateway.
docs/reasons.md is made from this file.  A third-party plug-in may use words of its own; their rejections are of
the class `Rejection.MISSING`.

To add one: use it in an `Answer` or `Unavailable`, add a row here, run scripts/reference.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Outcome(Enum):
    """The outcomes of a request, in the words that people read."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    OUT_OF_SCOPE = "out of scope"
    TEMPORARY_FAILURE = "temporary failure"

    __hash__ = object.__hash__  # Enum's is written in Python, and outcomes are keys wherever requests are counted


class Rejection(Enum):
    """The class of a rejection: SMTP servers have a status code for each."""

    MISSING = "missing"
    """The address does not exist."""
    FULL = "full"
    """The mailbox exists, and has no room now."""
    DISABLED = "disabled"
    """The mailbox exists, and takes no mail."""
    BLOCKED = "blocked"
    """A rule of its owner rejects the mail."""


class Reason(NamedTuple):
    """A reason word with one of its outcomes."""

    word: str
    outcome: Outcome
    meaning: str
    advice: str
    """What to do if this is not intended; empty: nothing."""
    rejection: Rejection | None = None
    """For rejections only."""


_ACCEPTED, _REJECTED, _OUT_OF_SCOPE, _TEMPORARY_FAILURE = Outcome
_MISSING, _FULL, _DISABLED, _BLOCKED = Rejection

REASONS: tuple[Reason, ...] = (
    # -- qmail: accepted
    Reason("mailbox", _ACCEPTED, "the user's own address; it needs no .qmail file", ""),
    Reason("dotqmail", _ACCEPTED, "the .qmail file for exactly this address", ""),
    Reason("dotqmail-default", _ACCEPTED, "a .qmail file whose name ends in -default", ""),
    Reason("discarded", _ACCEPTED, "an empty local part: qmail takes the message and throws it away", ""),
    # -- qmail: rejected and out of scope
    Reason(
        "no-mailbox",
        _REJECTED,
        "the controlling user has no .qmail file for the address",
        "create the file in the user's home; if the user is alias, no account was found",
        _MISSING,
    ),
    Reason(
        "home-not-absolute",
        _REJECTED,
        "the user's home does not start with /",
        "correct users/assign and run qmail-newu, or correct the account",
        _MISSING,
    ),
    Reason("nul", _REJECTED, "a NUL byte in the address", "nothing: no mail can have this address", _MISSING),
    Reason(
        "home-denied",
        _REJECTED,
        "its own user may not enter the home, and CVM_QMAIL_CHECK_PERMS=- makes that a rejection",
        "correct the owner and mode of the home",
        _DISABLED,
    ),
    Reason(
        "dotqmail-denied",
        _REJECTED,
        "its user may not read a .qmail file, and CVM_QMAIL_CHECK_PERMS=- makes that a rejection",
        "correct the owner and mode of the file",
        _DISABLED,
    ),
    Reason(
        "remote",
        _OUT_OF_SCOPE,
        "the domain is neither in locals nor in virtualdomains",
        "add the domain to one of them",
    ),
    Reason(
        "virtual-exception",
        _OUT_OF_SCOPE,
        'an entry "domain:" in virtualdomains says that the domain is remote',
        "remove that entry",
    ),
    Reason("not-ours", _OUT_OF_SCOPE, "the address is not in a domain of this module", "ask cvm-qmail about it"),
    Reason(
        "lookaside",
        _OUT_OF_SCOPE,
        "the .qmail file runs a program of CVM_QMAIL_LOOKASIDE",
        "ask the module that judges such addresses",
    ),
    # -- qmail: temporary failure, as qmail would defer the message unless the text says otherwise
    Reason(
        "control",
        _TEMPORARY_FAILURE,
        "a control file cannot be read, or neither me nor locals exists",
        "fix the file: it must be a regular file that qmails can read; qmail delivers no mail until then",
    ),
    Reason(
        "cdb-unreadable",
        _TEMPORARY_FAILURE,
        "users/cdb, or a plug-in's database, cannot be opened or read",
        "fix the file or its mode; qmail-newu writes users/cdb again",
    ),
    Reason(
        "cdb-damaged",
        _TEMPORARY_FAILURE,
        "the database ends before the record, or is not a constant database",
        "users/cdb: run qmail-newu; vpasswd.cdb: run vmkpasswd DOMAIN",
    ),
    Reason(
        "cdb-no-break-list",
        _TEMPORARY_FAILURE,
        "users/cdb has no list of break characters: it is empty or damaged",
        "run qmail-newu",
    ),
    Reason(
        "cdb-record",
        _TEMPORARY_FAILURE,
        "the entry for this name has fewer than six fields",
        "correct it in users/assign and run qmail-newu",
    ),
    Reason(
        "bad-id",
        _TEMPORARY_FAILURE,
        "the uid or gid is 4294967295, or unknown to the kernel",
        "correct users/assign or the account",
    ),
    Reason(
        "uid-zero",
        _TEMPORARY_FAILURE,
        "the user is root: qmail never delivers as root",
        "give the address to another user, for example in alias",
    ),
    Reason(
        "no-alias",
        _TEMPORARY_FAILURE,
        "no user was found, and there is no alias account",
        "create the account, or set CVM_QMAIL_ALIAS",
    ),
    Reason(
        "passwd",
        _TEMPORARY_FAILURE,
        "the password file or a name service cannot be read (qmail would bounce the mail)",
        "fix the error in the log line",
    ),
    Reason("nsswitch", _TEMPORARY_FAILURE, "/etc/nsswitch.conf cannot be read", "make it readable"),
    Reason(
        "passwd-home",
        _TEMPORARY_FAILURE,
        "an input/output error at the home of an account",
        "check its file server or disk",
    ),
    Reason(
        "home",
        _TEMPORARY_FAILURE,
        "the home cannot be entered: it is missing, not a directory, or an error occurred",
        "create the directory, or mount its file system",
    ),
    Reason(
        "home-denied",
        _TEMPORARY_FAILURE,
        "its own user may not enter the home",
        "correct the owner and mode of the home",
    ),
    Reason(
        "cannot-see",
        _TEMPORARY_FAILURE,
        "the server lacks the privileges to read this path",
        "give it the privileges that docs/security.md lists",
    ),
    Reason(
        "home-writable",
        _TEMPORARY_FAILURE,
        "the home is writable for others (CVM_QMAIL_MASK)",
        "run chmod o-w on the home",
    ),
    Reason(
        "home-sticky",
        _TEMPORARY_FAILURE,
        "the home is sticky: its user is editing .qmail files, and qmail defers the mail",
        "run chmod -t on the home when done",
    ),
    Reason("dotqmail", _TEMPORARY_FAILURE, "an input/output error at a .qmail file", "check its file server or disk"),
    Reason(
        "dotqmail-denied",
        _TEMPORARY_FAILURE,
        "its user may not read a .qmail file, or the server lacks the privileges to find out",
        "correct its owner and mode, or the server's privileges",
    ),
    Reason(
        "dotqmail-writable",
        _TEMPORARY_FAILURE,
        "the .qmail file is writable for others (CVM_QMAIL_MASK)",
        "run chmod o-w on the file",
    ),
    Reason("dotqmail-blank", _TEMPORARY_FAILURE, "the first line of the .qmail file is blank", "remove that line"),
    Reason(
        "dotqmail-forward-only",
        _TEMPORARY_FAILURE,
        "a file or program line in a .qmail file that may have only forwards",
        "run chmod -x on the file, or remove the line",
    ),
    Reason(
        "dotqmail-unread",
        _TEMPORARY_FAILURE,
        "the lines of the .qmail file decide, and the server may not read them (qmail may)",
        "give the server the privileges that docs/security.md lists",
    ),
    # -- the server: temporary failure
    Reason(
        "hang-backoff",
        _TEMPORARY_FAILURE,
        "a lookup hung at this path less than 10 seconds ago (qmail would hang)",
        "check its file server, disk or database",
    ),
    Reason(
        "deadline",
        _TEMPORARY_FAILURE,
        "the lookup took longer than CVM_LOOKUP_TIMEOUT",
        "check the file server, disk or database that it was using",
    ),
    Reason(
        "refused",
        _TEMPORARY_FAILURE,
        "a file that a plug-in needs: permission denied",
        "correct its owner and mode",
    ),
    Reason("unreadable", _TEMPORARY_FAILURE, "a file that a plug-in needs cannot be read", "fix the file"),
    Reason(
        "internal-error",
        _TEMPORARY_FAILURE,
        "a bug in this software or in a plug-in; the log line has the place",
        "report the log line",
    ),
    Reason(
        "malformed",
        _TEMPORARY_FAILURE,
        "not a CVM request (code 2); the log line has the details",
        "find out what connects to this socket",
    ),
    Reason(
        "no-secret",
        _TEMPORARY_FAILURE,
        "the client sent no secret (code 7)",
        "give the client the secret: mailfront's CVM_LOOKUP_SECRET",
    ),
    Reason(
        "wrong-secret",
        _TEMPORARY_FAILURE,
        "the client sent a wrong secret (code 7)",
        "give the client the secret: mailfront's CVM_LOOKUP_SECRET",
    ),
    Reason(
        "cannot-authenticate",
        _TEMPORARY_FAILURE,
        "the address exists, but CVM_LOOKUP_SECRET is not set (code 6)",
        "set it, if only to an empty value",
    ),
    Reason(
        "login-to-lookup",
        _TEMPORARY_FAILURE,
        "a password was sent to a server for lookups (code 6); an acceptance would let every password log in",
        "let CVM_SASL_* and pop3front-auth name a server without CVM_LOOKUP_SECRET",
    ),
    Reason(
        "no-password",
        _TEMPORARY_FAILURE,
        "no password was sent to a server for logins (code 7)",
        "correct the client",
    ),
    # -- programs in .qmail files
    Reason("fastforward", _ACCEPTED, "fastforward's table has instructions for the address", ""),
    Reason("dot-forward", _ACCEPTED, "a .forward file has an address to forward to", ""),
    Reason("program", _ACCEPTED, 'a program line, such as "|exit 99", ends the delivery with success', ""),
    Reason(
        "no-target",
        _REJECTED,
        "fastforward's table has no instructions for the address",
        "add them to the table's source file, and run setforward (newaliases) again",
        _MISSING,
    ),
    Reason(
        "forwards-to-nobody",
        _REJECTED,
        "mail is only forwarded, to addresses that are all rejected here (CVM_QMAIL_FOLLOW)",
        "correct the address in the .qmail file, table or alias",
        _MISSING,
    ),
    Reason("bouncesaying", _REJECTED, "a line with bouncesaying bounces the mail", "remove the line", _BLOCKED),
    Reason(
        "program-bounces",
        _REJECTED,
        'a program line, such as "|exit 100", bounces the mail',
        "remove the line, or correct its command",
        _BLOCKED,
    ),
    Reason(
        "program-defers",
        _TEMPORARY_FAILURE,
        'a program line, such as "|exit 111", defers the mail',
        "remove the line, or correct its command",
    ),
    Reason(
        "program-missing",
        _TEMPORARY_FAILURE,
        "a program line names a file that does not exist",
        "correct the path in the line",
    ),
    Reason(
        "no-table",
        _TEMPORARY_FAILURE,
        "fastforward's table, or vmailmgr's passwd.cdb, does not exist",
        "make it with setforward, newaliases or vmailmgr's tools",
    ),
    # -- vmailmgr
    Reason("vdeliver", _ACCEPTED, "a virtual user of vmailmgr, whose mail vdeliver delivers or forwards", ""),
    Reason("virtual-user", _ACCEPTED, "a virtual user of vmailmgr (module cvm-vmailmgr)", ""),
    Reason(
        "vdeliver-discards",
        _ACCEPTED,
        "a virtual user without a mailbox, or with a disabled one, and without forwards: vdeliver throws the mail away",
        "CVM_VMAILMGR_LOCKED=reject rejects it",
    ),
    Reason(
        "no-virtual-user",
        _REJECTED,
        "vmailmgr's table has neither such a user nor a default one",
        "run vadduser or vaddalias as the domain's owner",
        _MISSING,
    ),
    Reason(
        "virtual-user-expired",
        _REJECTED,
        "the virtual user has expired",
        "give it a later expiry, or none, with vmailmgr's tools (vchattr)",
        _DISABLED,
    ),
    Reason(
        "virtual-user-locked",
        _REJECTED,
        "the virtual user has no mailbox or a disabled one, and no forwards",
        "enable it with vmailmgr's tools (vchattr)",
        _DISABLED,
    ),
    Reason(
        "virtual-user-damaged",
        _TEMPORARY_FAILURE,
        "vmailmgr cannot read the virtual user's record",
        "write it again with vmailmgr's tools",
    ),
    Reason(
        "no-maildir",
        _TEMPORARY_FAILURE,
        "the virtual user's directory is not a maildir, or the owner may not enter it",
        "make the maildir, or correct its owner and mode",
    ),
    Reason(
        "no-list",
        _TEMPORARY_FAILURE,
        "a list that fastforward's table names does not exist, or is a directory",
        "make it with setmaillist",
    ),
    Reason(
        "list-not-public",
        _TEMPORARY_FAILURE,
        "the list is not readable for everybody, as fastforward requires",
        "run chmod o+r on the list",
    ),
    Reason(
        "dot-forward-line",
        _TEMPORARY_FAILURE,
        "dot-forward cannot use a line of the file: it is not a list of addresses, or delivers to a file",
        "correct the line",
    ),
    # -- vpopmail: accepted
    Reason("account", _ACCEPTED, "the account's maildir, which vpopmail makes if it is missing", ""),
    Reason("account-dotqmail", _ACCEPTED, "the .qmail file in the account's home, or in that of the catch-all", ""),
    Reason("default-delivery", _ACCEPTED, "control/defaultdelivery (CVM_VPOPMAIL_DEFAULT_DELIVERY)", ""),
    Reason("sql-alias", _ACCEPTED, "an alias in the SQL table valias", ""),
    Reason("catch-all", _ACCEPTED, "no account or alias: vdelivermail's second argument takes the mail", ""),
    Reason("unchecked", _ACCEPTED, "a domain whose catch-all does not bounce, with CVM_VPOPMAIL_CHECK=bounce", ""),
    Reason("tmda", _ACCEPTED, "the part before a dash is an account (CVM_VPOPMAIL_TMDA)", ""),
    Reason("ezmlm-directory", _ACCEPTED, "the part before a dash is a list (CVM_VPOPMAIL_EZMLM_DIRECTORY)", ""),
    Reason(
        "catch-all-delete",
        _ACCEPTED,
        "no account or alias: vdelivermail throws the mail away, and CVM_VPOPMAIL_DELETE=accept",
        "",
    ),
    Reason("locked", _ACCEPTED, "the account's mail bounces, and CVM_VPOPMAIL_LOCKED=accept", ""),
    Reason("login", _ACCEPTED, "the password or the response is correct", ""),
    # -- vpopmail: rejected
    Reason(
        "no-account",
        _REJECTED,
        "the domain has no such account and bounces unknown addresses; for a login: no such account",
        "run vadduser, or create .qmail-NAME in the domain's directory; see also CVM_VPOPMAIL_VALIAS",
        _MISSING,
    ),
    Reason(
        "invalid-username",
        _REJECTED,
        "a character that vpopmail does not allow, or a login without a user",
        "nothing: such an account cannot exist",
        _MISSING,
    ),
    Reason(
        "catch-all-delete",
        _REJECTED,
        "no account or alias: vdelivermail would throw the mail away",
        "as for no-account, or set CVM_VPOPMAIL_DELETE=accept",
        _MISSING,
    ),
    Reason(
        "locked",
        _REJECTED,
        "the account's mail bounces (BOUNCE_MAIL)",
        "clear the flag with vmoduser, or set CVM_VPOPMAIL_LOCKED=accept",
        _DISABLED,
    ),
    Reason(
        "home-not-made",
        _REJECTED,
        "the account's home is missing, and vpopmail cannot make it",
        "make it, and give it to the owner of the domain",
        _DISABLED,
    ),
    Reason(
        "over-quota",
        _REJECTED,
        "the mailbox, or its domain, is full, and CVM_VPOPMAIL_OVERQUOTA=reject",
        "its owner has to delete mail, or needs a larger quota",
        _FULL,
    ),
    Reason("wrong-password", _REJECTED, "the password or response is wrong, or the account has none", "", _BLOCKED),
    Reason(
        "service-forbidden",
        _REJECTED,
        "the password is correct, but a flag of the account or a limit of the domain forbids CVM_VPOPMAIL_SERVICE",
        "clear the flag or limit, if the login should succeed",
        _DISABLED,
    ),
    # -- vpopmail: temporary failure
    Reason(
        "over-quota",
        _TEMPORARY_FAILURE,
        "the mailbox, or its domain, is full (vdelivermail would bounce)",
        "its owner has to delete mail, or needs a larger quota",
    ),
    Reason(
        "quota-count",
        _TEMPORARY_FAILURE,
        "too many files to count for a quota",
        "delete mail, or set CVM_VPOPMAIL_OVERQUOTA=accept",
    ),
    Reason(
        "accounts-gone",
        _TEMPORARY_FAILURE,
        "the directory of the domain has neither vpasswd nor vpasswd.cdb (vdelivermail would bounce)",
        "mount the disk, or restore the files; accounts in a database: set CVM_VPOPMAIL_BACKEND",
    ),
    Reason(
        "backend-unknown",
        _TEMPORARY_FAILURE,
        "no setting names the back end; vpopmail's directory is missing, or a database was configured after the start",
        "set CVM_VPOPMAIL_DIR and CVM_VPOPMAIL_BACKEND, or restart the server",
    ),
    Reason(
        "maildir",
        _TEMPORARY_FAILURE,
        "the maildir is missing, or its owner may not write to it",
        "make it, with the right owner and mode",
    ),
    Reason(
        "mbox",
        _TEMPORARY_FAILURE,
        "vdelivermail cannot deliver to a file, only to maildirs",
        "end the line that starts with . or / with a /",
    ),
    Reason(
        "too-much",
        _TEMPORARY_FAILURE,
        "reading all files for the address (to count its quota, say) took more than four fifths of CVM_LOOKUP_TIMEOUT",
        "let the owner delete files; if it was the quota, set CVM_VPOPMAIL_OVERQUOTA=accept",
    ),
    Reason(
        "too-many-lines",
        _TEMPORARY_FAILURE,
        "more than 1,000 different lines for programs and mailboxes in the .qmail files of one address",
        "use a mailing list (ezmlm) instead, or forwards",
    ),
    Reason(
        "vdelivermail-arguments",
        _TEMPORARY_FAILURE,
        "vdelivermail does not have two arguments",
        "write | /home/vpopmail/bin/vdelivermail '' bounce-no-mailbox",
    ),
    Reason(
        "vdelivermail-loop",
        _TEMPORARY_FAILURE,
        "vdelivermail runs itself in a loop (the real one never ends)",
        "correct the .qmail file",
    ),
    Reason(
        "owner",
        _TEMPORARY_FAILURE,
        "mail for the domain is delivered under a uid that is not its owner's in users/cdb",
        "correct users/assign and run qmail-newu",
    ),
    Reason(
        "domain-record",
        _TEMPORARY_FAILURE,
        "the domain's record in users/cdb is not one of vpopmail's",
        "correct users/assign and run qmail-newu",
    ),
    Reason(
        "not-a-file",
        _TEMPORARY_FAILURE,
        "a FIFO or device in place of a file (vdelivermail might wait for ever)",
        "remove it",
    ),
    Reason(
        "crypt",
        _TEMPORARY_FAILURE,
        "crypt(3) has no memory for the hash, or is missing",
        "raise the memory limit; install libcrypt",
    ),
    Reason(
        "database-down",
        _TEMPORARY_FAILURE,
        "the database server cannot be reached, or closed the connection",
        "check whether it is running",
    ),
    Reason(
        "database-slow",
        _TEMPORARY_FAILURE,
        "the database server gave no answer in time",
        "find out what it is busy with",
    ),
    Reason(
        "database-lag",
        _TEMPORARY_FAILURE,
        "nothing was found, but the database is behind its primary or cluster, or may be",
        "find out why the replica is behind; see CVM_VPOPMAIL_SQL_MAX_LAG and CVM_VPOPMAIL_SQL_PRIMARY, or"
        " CVM_DIRECTORY_MAX_LAG and CVM_DIRECTORY_PRIMARY",
    ),
    Reason(
        "database-full",
        _TEMPORARY_FAILURE,
        "the database server has too many connections",
        "use fewer workers, or allow more connections",
    ),
    Reason(
        "database-refused",
        _TEMPORARY_FAILURE,
        "the database server refuses the login, the database or a table",
        "correct the credentials in etc/, or the account's privileges in the database",
    ),
    Reason(
        "database-tables",
        _TEMPORARY_FAILURE,
        "the table does not exist, or the domain's name cannot be a table's",
        "check CVM_VPOPMAIL_MANY_DOMAINS",
    ),
    Reason(
        "database-columns",
        _TEMPORARY_FAILURE,
        "a column does not exist, or is not text",
        "check CVM_VPOPMAIL_CLEAR_PASSWORDS",
    ),
    Reason(
        "database-error",
        _TEMPORARY_FAILURE,
        "another error of the database server, which is in the log line",
        "fix that error",
    ),
    Reason(
        "database-settings",
        _TEMPORARY_FAILURE,
        "the file with the credentials cannot be used (code 6)",
        "correct it; no restart is needed",
    ),
    # -- cvm-directory
    Reason("published", _ACCEPTED, "the address is in the directory", ""),
    Reason("published-pattern", _ACCEPTED, "a pattern of addresses in the directory", ""),
    Reason(
        "published-doubt",
        _ACCEPTED,
        "the mailbox host judges each address of this pattern when mail comes, and could not publish which ones exist",
        "",
    ),
    Reason(
        "not-published",
        _REJECTED,
        "the domain is in the directory, and the address is not",
        "cvmctl publish on the mailbox host; cvmctl trace there says whether it exists",
        _MISSING,
    ),
    Reason(
        "unpublished-domain",
        _OUT_OF_SCOPE,
        "no host has published the domain, or the address has none",
        "cvmctl publish on the host that has its mailboxes",
    ),
    Reason(
        "published-remote",
        _OUT_OF_SCOPE,
        "it was published as an address that its host delivers elsewhere, or leaves to another module",
        "",
    ),
    Reason(
        "directory-stale",
        _TEMPORARY_FAILURE,
        "the domain was published longer ago than CVM_DIRECTORY_MAX_AGE",
        "see why cvmctl publish does not run on its host, or why it refuses the domain",
    ),
    Reason(
        "directory-damaged",
        _TEMPORARY_FAILURE,
        "the directory has a row that cvmctl publish did not write",
        "remove the domain from cvm_domain and cvm_address, and publish it again",
    ),
    Reason(
        "published-unknown",
        _TEMPORARY_FAILURE,
        "it was a temporary failure when it was published (--unknown include)",
        "cvmctl trace on its host says why; publish again",
    ),
    # -- cvm-gateway: what it adds to the words of the module that it asks
    Reason("sender-not-checked", _ACCEPTED, "the sender is one of CVM_GATEWAY_SENDERS", ""),
    Reason(
        "denied-at-data",
        _ACCEPTED,
        "the address does not exist, and CVM_GATEWAY_DENY_ALL rejects the message at DATA instead",
        "",
    ),
    Reason(
        "denied-at-data",
        _REJECTED,
        "a message: one of its recipients does not exist, and CVM_GATEWAY_DENY_ALL is set",
        "find the recipient in the lines above",
        _MISSING,
    ),
    Reason(
        "rejected-characters",
        _REJECTED,
        "the local part has one of the characters in CVM_GATEWAY_REJECT_CHARS",
        "remove the character from CVM_GATEWAY_REJECT_CHARS",
        _BLOCKED,
    ),
    Reason(
        "throttled",
        _TEMPORARY_FAILURE,
        "the client has asked about too many addresses that do not exist (CVM_GATEWAY_PROBE_LIMIT)",
        "nothing: it ends by itself",
    ),
    Reason(
        "no-route",
        _OUT_OF_SCOPE,
        "the gateway's routes have neither a module for the domain nor a default",
        "add a line for the domain to the file of routes",
    ),
    Reason(
        "too-many-waiting",
        _TEMPORARY_FAILURE,
        "CVM_GATEWAY_WAITING questions are already waiting for the module",
        "find out why the module is slow",
    ),
    Reason(
        "too-long-to-ask",
        _TEMPORARY_FAILURE,
        "the address does not fit into a CVM packet: at most 255 bytes before and after the @",
        "nothing: no account and no file can have such a long name",
    ),
    Reason(
        "backend-down",
        _TEMPORARY_FAILURE,
        "the module of CVM_GATEWAY_MODULE, or of the route, cannot be reached, or closed the connection",
        "start it; compare its socket with CVM_GATEWAY_MODULE or the route",
    ),
    Reason(
        "backend-slow",
        _TEMPORARY_FAILURE,
        "the module gave no answer within CVM_GATEWAY_TIMEOUT",
        "read its log",
    ),
    Reason(
        "backend-secret",
        _TEMPORARY_FAILURE,
        "the module requires a different secret, or the other gateway a different token or certificate",
        "give the gateway the module's CVM_LOOKUP_SECRET, or the other's CVM_GATEWAY_TOKEN as CVM_GATEWAY_HTTPS_TOKEN",
    ),
    Reason(
        "backend-error",
        _TEMPORARY_FAILURE,
        "the module has a temporary failure, and gives no reason",
        "read its log",
    ),
    Reason(
        "backend-nonsense",
        _TEMPORARY_FAILURE,
        "the answer is not that of a CVM module, or it says that the request was malformed",
        "find out what listens at CVM_GATEWAY_MODULE or at the route",
    ),
)

WORDS: dict[str, tuple[Reason, ...]] = {}
"""The rows of each word: most have one, some have one for each of several outcomes."""
for _reason in REASONS:
    WORDS[_reason.word] = (*WORDS.get(_reason.word, ()), _reason)


def reason_of(word: str, outcome: Outcome) -> Reason | None:
    """The row for a word and an outcome; None for a word of a third-party plug-in."""
    return next((reason for reason in WORDS.get(word, ()) if reason.outcome is outcome), None)


def rejection_of(word: str) -> Rejection:
    """The class of a rejection with this reason."""
    reason = reason_of(word, Outcome.REJECTED)
    return Rejection.MISSING if reason is None or reason.rejection is None else reason.rejection
