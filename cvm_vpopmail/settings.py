"""What vpopmail has as compile options, and the policies of this check: environment to `Vpopmail`.

docs/settings.md is checked against `VARIABLES` by a test.
"""

from __future__ import annotations

import errno
import os
import pwd
from typing import NamedTuple

from cvm_qmail.settings import BadSetting, Settings, Variable

VARIABLES = (
    Variable(
        "CVM_VPOPMAIL_DIR",
        "the home of the user vpopmail, else /home/vpopmail",
        "the vpopmail directory",
    ),
    Variable(
        "CVM_VPOPMAIL_BACKEND",
        "mysql or pgsql if etc/vpopmail.mysql or etc/vpopmail.pgsql is there, else cdb",
        "where accounts are: cdb, mysql or pgsql",
    ),
    Variable("CVM_VPOPMAIL_MANY_DOMAINS", "1", "SQL: 1: one table for all domains; 0: one for each"),
    Variable("CVM_VPOPMAIL_VALIAS", "files", "aliases: in .qmail files, or in sql too"),
    Variable("CVM_VPOPMAIL_SQL_LIMITS", "0", "1: domain limits are in the SQL table limits"),
    Variable(
        "CVM_VPOPMAIL_SQL_FILE",
        "etc/vpopmail.mysql or etc/vpopmail.pgsql in the vpopmail directory",
        "SQL: the file with the credentials",
    ),
    Variable(
        "CVM_VPOPMAIL_SQL_SERVERS",
        "those of the file",
        "SQL: servers to try in this order, separated by spaces: host, host:port, or the path of a socket",
    ),
    Variable(
        "CVM_VPOPMAIL_SQL_REPLICA",
        "0",
        "MySQL: 1: built with replication: the file's first line is asked first, the second when that fails",
    ),
    Variable("CVM_VPOPMAIL_SQL_TLS", "off", "SQL over TCP: off, on, or verify: with a certificate that is checked"),
    Variable("CVM_VPOPMAIL_SQL_CA", "the system's", "SQL: file with the certificates that verify trusts"),
    Variable(
        "CVM_VPOPMAIL_SQL_CHARSET", "latin1", "MySQL: the character set in which vpopmail's client library gets text"
    ),
    Variable("CVM_VPOPMAIL_CACHE", "0", "SQL: seconds for which what was found is given again; 0: not at all"),
    Variable("CVM_VPOPMAIL_CACHE_NEGATIVE", "0", "SQL: the same for what was not found"),
    Variable(
        "CVM_VPOPMAIL_CACHE_STALE",
        "0",
        "SQL: seconds past its time for which what was found is given while the database cannot be asked",
    ),
    Variable("CVM_VPOPMAIL_CACHE_SIZE", "10000", "SQL: answers that a worker keeps at the most"),
    Variable("CVM_VPOPMAIL_QMAIL_EXT", "0", "1: built with qmail-ext"),
    Variable("CVM_VPOPMAIL_CLEAR_PASSWORDS", "0", "1: built with clear passwords: CRAM-MD5 and APOP are possible"),
    Variable("CVM_VPOPMAIL_DEFAULT_DELIVERY", "0", "1: built to read control/defaultdelivery at each delivery"),
    Variable(
        "CVM_VPOPMAIL_SERVICE",
        "smtp",
        "what logins are for: smtp, submission, pop3, imap or webmail",
    ),
    Variable("CVM_VPOPMAIL_DELETE", "reject", "the catch-all delete, which throws mail away: reject or accept"),
    Variable("CVM_VPOPMAIL_OVERQUOTA", "temp", "mailbox over quota: temp, reject or accept"),
    Variable("CVM_VPOPMAIL_LOCKED", "reject", "accounts with BOUNCE_MAIL: reject or accept"),
    Variable("CVM_VPOPMAIL_MESSAGE_BYTES", "1024", "size of a message that is assumed for quotas"),
    Variable("CVM_VPOPMAIL_DOMAIN_QUOTAS", "0", "1: built with domain quotas"),
    Variable(
        "CVM_VPOPMAIL_CHECK",
        "all",
        "bounce: only where .qmail-default says bounce-no-mailbox, all else there is accepted, as chkusr does; or all",
    ),
    Variable("CVM_VPOPMAIL_TMDA", "0", "1: NAME-anything exists if the account NAME does, the shortest first"),
    Variable("CVM_VPOPMAIL_EZMLM_DIRECTORY", "0", "1: LIST-anything exists if LIST/editor does, the longest first"),
    Variable("VPOPMAIL_DOMAIN", "unset", "domain of logins without one; empty: none"),
)

BACKENDS = ("cdb", "mysql", "pgsql")

_USUAL = b"/home/vpopmail"

SERVICES = ("smtp", "submission", "pop3", "imap", "webmail")


class Vpopmail(NamedTuple):
    """The settings of one vpopmail."""

    directory: bytes
    backend: str
    guessed: bool
    """Whether the back end is cdb because nothing says otherwise."""
    many_domains: bool
    sql_aliases: bool
    sql_limits: bool
    qmail_ext: bool
    clear_passwords: bool
    default_delivery: bool
    service: str
    delete: str
    overquota: str
    locked: str
    message_bytes: int
    domain_quotas: bool
    only_bouncing: bool
    tmda: bool
    ezmlm_directory: bool
    default_domain: bytes | None
    """None: as etc/defaultdomain says."""

    @classmethod
    def from_settings(cls, settings: Settings) -> Vpopmail:
        """Raises `BadSetting`."""
        env = settings.environment
        directory = settings.folder("CVM_VPOPMAIL_DIR", _home(settings.passwd))
        named = settings.choice("CVM_VPOPMAIL_BACKEND", "", BACKENDS) if env.get("CVM_VPOPMAIL_BACKEND") else ""
        backend = "" if named else seen_backend(directory)
        domain = env.get("VPOPMAIL_DOMAIN")
        return cls(
            directory=directory,
            backend=named or backend,
            guessed=not named and backend == "cdb",
            many_domains=settings.flag("CVM_VPOPMAIL_MANY_DOMAINS", default=True),
            sql_aliases=settings.choice("CVM_VPOPMAIL_VALIAS", "files", ("files", "sql")) == "sql",
            sql_limits=settings.flag("CVM_VPOPMAIL_SQL_LIMITS"),
            qmail_ext=settings.flag("CVM_VPOPMAIL_QMAIL_EXT"),
            clear_passwords=settings.flag("CVM_VPOPMAIL_CLEAR_PASSWORDS"),
            default_delivery=settings.flag("CVM_VPOPMAIL_DEFAULT_DELIVERY"),
            service=settings.choice("CVM_VPOPMAIL_SERVICE", "smtp", SERVICES),
            delete=settings.choice("CVM_VPOPMAIL_DELETE", "reject", ("reject", "accept")),
            overquota=settings.choice("CVM_VPOPMAIL_OVERQUOTA", "temp", ("temp", "reject", "accept")),
            locked=settings.choice("CVM_VPOPMAIL_LOCKED", "reject", ("reject", "accept")),
            message_bytes=settings.number("CVM_VPOPMAIL_MESSAGE_BYTES", 1024, 0, 1 << 40),
            domain_quotas=settings.flag("CVM_VPOPMAIL_DOMAIN_QUOTAS"),
            only_bouncing=settings.choice("CVM_VPOPMAIL_CHECK", "all", ("all", "bounce")) == "bounce",
            tmda=settings.flag("CVM_VPOPMAIL_TMDA"),
            ezmlm_directory=settings.flag("CVM_VPOPMAIL_EZMLM_DIRECTORY"),
            default_domain=None if domain is None else os.fsencode(domain).lower(),
        )


def _home(passwd: str | None) -> bytes:
    """Where vpopmail usually is; `passwd` takes the place of /etc/passwd."""
    if passwd is None:
        try:
            return os.fsencode(pwd.getpwnam("vpopmail").pw_dir).rstrip(b"/") or _USUAL
        except KeyError:
            return _USUAL
    try:
        with open(passwd, "rb") as lines:
            fields = (line.rstrip(b"\n").split(b":") for line in lines)
            return next(
                (field[5].rstrip(b"/") for field in fields if field[0] == b"vpopmail" and len(field) > 5), _USUAL
            )
    except OSError:
        return _USUAL


def seen_backend(directory: bytes) -> str:
    """By the files that are there.  Raises `BadSetting` where a vpopmail is, and its files cannot be seen."""
    for backend in ("mysql", "pgsql"):
        try:
            os.stat(b"%s/etc/vpopmail.%s" % (directory, backend.encode()))
        except OSError as error:  # taken for cdb, no account of a database would exist
            if error.errno not in (errno.ENOENT, errno.ENOTDIR) and os.path.isdir(directory):
                found = f"cdb, mysql or pgsql, since {os.fsdecode(directory)}/etc cannot be seen: {error.strerror}"
                raise BadSetting("CVM_VPOPMAIL_BACKEND", "", found) from None
        else:
            return backend
    return "cdb"


__all__ = ["SERVICES", "VARIABLES", "BadSetting", "Vpopmail"]
