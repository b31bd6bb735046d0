"""vpopmail's compile options, and the policies of this check: from the environment to `Vpopmail`.

docs/settings.md is made from `SETTINGS`.
"""

import errno
import os
import pwd
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from cvm_qmail.settings import BadSetting, Setting, Settings, choice, flag, number, path, read
from cvm_vpopmail.dialects import DIALECTS, Dialect

CDB = "cdb"
"""The back end of files, which is not a dialect."""

BACKENDS = (CDB, *DIALECTS)

SERVICES = ("smtp", "submission", "pop3", "imap", "webmail")

_USUAL = b"/home/vpopmail"


_FILES = [dialect.credentials.decode() for dialect in DIALECTS.values()]


def _one_of(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _lower(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text).lower()


def _backend(text: str | None) -> str:
    """The back end; empty: no setting names one."""
    return choice("", *BACKENDS)(text)


SETTINGS: dict[str, Setting[Any]] = {
    "directory": Setting(
        "CVM_VPOPMAIL_DIR",
        "the home of the user vpopmail, else /home/vpopmail",
        lambda text: None if not text else path(_USUAL)(text),
        "the vpopmail directory",
    ),
    "backend": Setting(
        "CVM_VPOPMAIL_BACKEND",
        f"{' or '.join(DIALECTS)} if {' or '.join(_FILES)} exists, else {CDB}",
        _backend,
        f"where the accounts are: {_one_of(BACKENDS)}",
    ),
    "many_domains": Setting(
        "CVM_VPOPMAIL_MANY_DOMAINS", "1", flag(default=True), "SQL: 1: one table for all domains; 0: one for each"
    ),
    "valias": Setting(
        "CVM_VPOPMAIL_VALIAS", "files", choice("files", "sql"), "aliases: in .qmail files, or in sql too"
    ),
    "sql_limits": Setting("CVM_VPOPMAIL_SQL_LIMITS", "0", flag(), "SQL: 1: domain limits are in the table limits"),
    "qmail_ext": Setting("CVM_VPOPMAIL_QMAIL_EXT", "0", flag(), "1: built with qmail-ext"),
    "clear_passwords": Setting(
        "CVM_VPOPMAIL_CLEAR_PASSWORDS",
        "0",
        flag(),
        "1: built with clear passwords: CRAM-MD5 and APOP are possible",
    ),
    "default_delivery": Setting(
        "CVM_VPOPMAIL_DEFAULT_DELIVERY", "0", flag(), "1: built to read control/defaultdelivery at each delivery"
    ),
    "service": Setting(
        "CVM_VPOPMAIL_SERVICE",
        "smtp",
        choice(*SERVICES),
        "what logins are for: smtp, submission, pop3, imap or webmail",
    ),
    "delete": Setting(
        "CVM_VPOPMAIL_DELETE",
        "reject",
        choice("reject", "accept"),
        "the catch-all delete, which throws mail away: reject or accept",
    ),
    "overquota": Setting(
        "CVM_VPOPMAIL_OVERQUOTA",
        "temp",
        choice("temp", "reject", "accept"),
        "mailbox over quota: temp (temporary failure), reject or accept",
    ),
    "locked": Setting(
        "CVM_VPOPMAIL_LOCKED", "reject", choice("reject", "accept"), "accounts with BOUNCE_MAIL: reject or accept"
    ),
    "message_bytes": Setting(
        "CVM_VPOPMAIL_MESSAGE_BYTES",
        "1024",
        number(1024, 0, 1 << 40),
        "size of a message, assumed when a quota is checked",
        "bytes",
    ),
    "domain_quotas": Setting("CVM_VPOPMAIL_DOMAIN_QUOTAS", "0", flag(), "1: built with domain quotas"),
    "check": Setting(
        "CVM_VPOPMAIL_CHECK",
        "all",
        choice("all", "bounce"),
        "all; or bounce: check only domains with bounce-no-mailbox in .qmail-default, accept the rest, as chkusr does",
    ),
    "tmda": Setting(
        "CVM_VPOPMAIL_TMDA", "0", flag(), "1: NAME-anything exists if the account NAME does, the shortest first"
    ),
    "ezmlm_directory": Setting(
        "CVM_VPOPMAIL_EZMLM_DIRECTORY",
        "0",
        flag(),
        "1: LIST-anything exists if LIST/editor does; the longest LIST first",
    ),
    "default_domain": Setting("VPOPMAIL_DOMAIN", "unset", _lower, "domain of logins without one; empty: none"),
}
"""The settings of every back end; those of databases are in `sqlconfig`."""


class Vpopmail(NamedTuple):
    """The settings of one vpopmail."""

    directory: bytes
    dialect: Dialect | None
    """The database with the accounts; None: cdb files."""
    guessed: bool
    """Whether the back end is cdb only because nothing names another."""
    many_domains: bool
    sql_aliases: bool
    """Whether aliases are in the database too; never with cdb files."""
    sql_limits: bool
    """Whether limits are; likewise."""
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
    """None: the one in etc/defaultdomain."""

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """From the environment, else from the disk.  Raises `BadSetting`."""
        given = read(SETTINGS, settings.environment)
        directory = given.pop("directory") or _home(settings.passwd)
        named = given.pop("backend")
        dialect = DIALECTS.get(named) if named else seen_dialect(directory)
        return cls(
            directory=directory,
            dialect=dialect,
            guessed=not named and dialect is None,
            sql_aliases=given.pop("valias") == "sql" and dialect is not None,
            sql_limits=given.pop("sql_limits") and dialect is not None,
            only_bouncing=given.pop("check") == "bounce",
            **given,
        )

    @property
    def backend(self) -> str:
        """Where accounts are, as CVM_VPOPMAIL_BACKEND names it."""
        return CDB if self.dialect is None else self.dialect.name

    @property
    def assigns_homes(self) -> bool:
        """Whether vpopmail gives a home to an account without one when mail comes: vmysql.c and vpgsql.c store it."""
        return self.dialect is not None


def _home(passwd: str | None) -> bytes:
    """The usual directory of vpopmail; `passwd` replaces /etc/passwd."""
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


def seen_dialect(directory: bytes) -> Dialect | None:
    """The database whose credentials are in vpopmail's directory; None: no such file, so cdb.

    Raises `BadSetting` if there is a vpopmail whose files cannot be read.
    """
    for dialect in DIALECTS.values():
        try:
            os.stat(b"%s/%s" % (directory, dialect.credentials))
        except OSError as error:  # with cdb as a guess, no account of a database would exist
            if error.errno not in (errno.ENOENT, errno.ENOTDIR) and os.path.isdir(directory):
                found = f"{_one_of(BACKENDS)}, since {os.fsdecode(directory)}/etc cannot be read: {error.strerror}"
                raise BadSetting("CVM_VPOPMAIL_BACKEND", "", found) from None
        else:
            return dialect
    return None
