"""From the environment to `Settings`: each variable is declared once, read once, and checked at start.

Invariants: a malformed value is a `BadSetting` at start, never an error later.  docs/settings.md,
the man pages and ``--help-settings`` are made from the declarations or checked against them.

To add one: a row in `SETTINGS`, a field of the same name in `Settings`, run scripts/reference.  Plug-ins
declare theirs with `Setting` too, and name them as an entry point of ``cvm_qmail.settings``.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, Self, TypeVar

from cvm_qmail.exits import PERMANENT, Failure

T = TypeVar("T")


class BadSetting(Failure):
    """A setting that cannot be used: its name, what was found, what was expected."""

    def __init__(self, name: str, found: str, expected: str) -> None:
        super().__init__(f"{name}: found {found!r}, expected {expected}", PERMANENT)


class Invalid(ValueError):
    """A parser did not accept a text; the message is what it expects."""


class Setting(NamedTuple, Generic[T]):
    """One environment variable."""

    name: str
    default: str
    """The default, as the documents show it."""
    parse: Callable[[str | None], T]
    """The parser: returns the value of a text (None: the variable is not set), or raises `Invalid`."""
    meaning: str
    unit: str = ""
    secret: bool = False
    """Whether nobody must see the value: messages do not show it, and `cvmctl status` only that it is set."""

    def read(self, environment: Mapping[str, str]) -> T:
        """The value.  Raises `BadSetting`."""
        text = environment.get(self.name)
        try:
            return self.parse(text)
        except Invalid as invalid:
            raise BadSetting(self.name, "(not shown)" if self.secret else text or "", str(invalid)) from None


# -- parsers ------------------------------------------------------------------------------------------

# A parser takes the text of a variable, None if it is not set, and returns its value or raises `Invalid`.
# Those that have parameters are made by a function.


def optional_bytes(text: str | None) -> bytes | None:
    """The text; None if the variable is not set.  Empty is not the same as unset."""
    return None if text is None else os.fsencode(text)


def optional(text: str | None) -> str | None:
    """The text; None if the variable is empty or not set."""
    return text or None


def presence(text: str | None) -> bool:
    """Whether the variable is set, even empty."""
    return text is not None


def path(default: bytes) -> Callable[[str | None], bytes]:
    """A parser of an absolute path, which it returns without a slash at its end.  Empty or not set: `default`."""

    def parse(text: str | None) -> bytes:
        value = os.fsencode(text) if text else default
        if not value.startswith(b"/"):
            raise Invalid("a path that starts with /")
        return value.rstrip(b"/") or b"/"

    return parse


def number(default: int, least: int, most: int) -> Callable[[str | None], int]:
    """A parser of a whole number from `least` to `most`.  Empty or not set: `default`."""

    def parse(text: str | None) -> int:
        if not text:
            return default
        value = int(text.lstrip("0")[:12] or "0") if text.isascii() and text.isdigit() else least - 1
        if not least <= value <= most:
            raise Invalid(f"a whole number from {least} to {most}")
        return value

    return parse


def seconds(default: int, least: int, most: int) -> Callable[[str | None], float]:
    """A parser of milliseconds (the parameters are, too) that returns seconds; 0, where allowed, is the default."""
    whole = number(default, least, most)
    return lambda text: (whole(text) or default) / 1000


def octal(default: int) -> Callable[[str | None], int]:
    """A parser of a mode in octal digits.  Empty or not set: `default`."""

    def parse(text: str | None) -> int:
        if not text:
            return default
        if not re.fullmatch("[0-7]{1,5}", text) or int(text, 8) > 0o7777:
            raise Invalid("a mode as one to four octal digits, like 0770")
        return int(text, 8)

    return parse


def choice(default: str, *others: str) -> Callable[[str | None], str]:
    """A parser of one of these words.  Empty or not set: `default`."""
    words = (default, *others)

    def parse(text: str | None) -> str:
        value = text or default
        if value not in words:
            raise Invalid("one of " + ", ".join(sorted(words) if {*words} == {"0", "1"} else words))
        return value

    return parse


def flag(*, default: bool = False) -> Callable[[str | None], bool]:
    """A parser of ``1``, which is True, and ``0``.  Empty or not set: `default`."""
    word = choice(str(int(default)), str(int(not default)))
    return lambda text: word(text) == "1"


def matching(default: bytes, pattern: bytes, expected: str) -> Callable[[str | None], bytes]:
    """A parser of bytes that the whole `pattern` matches; `expected` is its message.  Empty or not set: `default`."""

    def parse(text: str | None) -> bytes:
        value = os.fsencode(text) if text else default
        if not re.fullmatch(pattern, value, re.DOTALL):
            raise Invalid(expected)
        return value

    return parse


def words(text: str | None) -> frozenset[bytes]:
    """Words separated by spaces; none if the variable is empty or not set."""
    return frozenset(os.fsencode(text or "").split(b" ")) - {b""}


def _programs(text: str | None) -> tuple[str, ...] | None:
    return None if text is None or text == "all" else tuple(text.split())


def _missing_domain(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text) or b"localhost"


# -- the settings of every module ---------------------------------------------------------------------

_HOUR = 3_600_000

SETTINGS: dict[str, Setting[Any]] = {
    "qmail_root": Setting("QMAIL_ROOT", "/var/qmail", path(b"/var/qmail"), "the qmail home"),
    "lookup_secret": Setting(
        "CVM_LOOKUP_SECRET",
        "unset",
        optional_bytes,
        "the secret that clients must send; empty: none is required; unset: authentication mode",
        secret=True,
    ),
    "socket_mode": Setting("CVM_SOCKET_MODE", "0777", octal(0o777), "mode of the socket, octal"),
    "socket_owner": Setting(
        "CVM_SOCKET_OWNER", "unset", optional, "owner of the socket, name or uid; a name also sets the group"
    ),
    "socket_group": Setting("CVM_SOCKET_GROUP", "unset", optional, "group of the socket, name or gid"),
    "local_timeout": Setting(
        "CVM_LOCAL_TIMEOUT",
        "1000",
        seconds(1000, 0, _HOUR),
        "time for a client to send its request; 0: the default",
        "milliseconds",
    ),
    "lookup_timeout": Setting(
        "CVM_LOOKUP_TIMEOUT",
        "5000",
        seconds(5000, 1, _HOUR),
        "time for a lookup; after that the answer is a temporary failure",
        "milliseconds",
    ),
    "workers": Setting(
        "CVM_WORKERS",
        "one per core, at least 2",
        number(max(2, len(os.sched_getaffinity(0))), 1, 1024),
        "number of worker processes",
    ),
    "log": Setting("CVM_LOG", "text", choice("text", "json"), "format of log lines: text or json"),
    "stats": Setting(
        "CVM_STATS",
        "beside the socket, PATH.stats",
        lambda text: text,
        "the file in which the server counts; empty: none",
    ),
    "assume_local": Setting(
        "CVM_QMAIL_ASSUME_LOCAL",
        "unset",
        presence,
        "set, even empty: a domain that is in neither locals nor virtualdomains is local",
    ),
    "missing_domain": Setting(
        "CVM_QMAIL_MISSINGDOMAIN",
        "unset",
        _missing_domain,
        "the domain to answer with for a domain that is out of scope; empty: localhost",
    ),
    "missing_user": Setting(
        "CVM_QMAIL_MISSINGUSER",
        "alias",
        lambda text: os.fsencode(text or "alias"),
        "the local part to look up when CVM_QMAIL_MISSINGDOMAIN has replaced the domain",
    ),
    "lookaside": Setting(
        "CVM_QMAIL_LOOKASIDE",
        "unset",
        words,
        "programs (first words after | in .qmail files) whose addresses another module judges",
    ),
    "denied_is_permanent": Setting(
        "CVM_QMAIL_CHECK_PERMS",
        "unset",
        lambda text: (text or "").startswith("-"),
        "starting with -: a denied access is a rejection instead of a temporary failure",
    ),
    "breakchar": Setting(
        "CVM_QMAIL_BREAK", "-", matching(b"-", rb"[^\0]", "one byte"), "conf-break of the qmail build: one byte"
    ),
    "alias": Setting(
        "CVM_QMAIL_ALIAS",
        "alias",
        matching(b"alias", rb"[^:/\0\n]+", "the name of an account"),
        "name of the alias account (conf-users)",
    ),
    "mask": Setting(
        "CVM_QMAIL_MASK", "002", octal(0o002), "conf-patrn of the qmail build, octal: modes that make qmail-local defer"
    ),
    "programs": Setting(
        "CVM_QMAIL_PROGRAMS",
        "all",
        _programs,
        "plug-ins for delivery programs that .qmail files run: names separated by spaces; empty: none",
    ),
    "branch": Setting(
        "CVM_QMAIL_BRANCH", "0", flag(), "1: qmail-local has the qmail-branch patch (?LABEL and :LABEL lines)"
    ),
    "follow": Setting(
        "CVM_QMAIL_FOLLOW",
        "0",
        flag(),
        "1: an address is rejected if it is only forwarded, and every target would be rejected",
    ),
    "shadow": Setting(
        "CVM_SHADOW", "unset", optional, "another module to compare with: it gets each question; differences are logged"
    ),
    "dry_run": Setting("CVM_DRY_RUN", "0", flag(), "1: addresses that would be rejected are accepted, and logged"),
    "sandbox": Setting(
        "CVM_SANDBOX",
        "auto",
        choice("auto", "required", "off"),
        "auto: as much as the kernel supports; required: no start without Landlock and seccomp; off: none",
    ),
    "passwd": Setting("NSS_WRAPPER_PASSWD", "unset", optional, "replaces /etc/passwd (for tests with libnss-wrapper)"),
}
"""By the field of `Settings` that has the value."""


class Settings(NamedTuple):
    """The settings of a module, and the environment, in which plug-ins find their own."""

    qmail_root: bytes
    lookup_secret: bytes | None
    socket_mode: int
    socket_owner: str | None
    socket_group: str | None
    local_timeout: float
    """Seconds."""
    lookup_timeout: float
    """Seconds."""
    workers: int
    log: str
    stats: str | None
    """None: beside the socket; empty: none."""
    assume_local: bool
    missing_domain: bytes | None
    missing_user: bytes
    lookaside: frozenset[bytes]
    denied_is_permanent: bool
    breakchar: bytes
    alias: bytes
    mask: int
    programs: tuple[str, ...] | None
    """None: all that are installed."""
    branch: bool
    follow: bool
    shadow: str | None
    dry_run: bool
    sandbox: str
    passwd: str | None
    environment: Mapping[str, str]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """The settings in `environment`, by default this process's.  Raises `BadSetting`."""
        env = os.environ if environment is None else environment
        settings = cls(**read(SETTINGS, env), environment=env)
        if settings.dry_run and settings.lookup_secret is None:  # it would accept wrong passwords
            expected = "CVM_LOOKUP_SECRET as well: a dry run is for lookups, not for passwords"
            raise BadSetting("CVM_DRY_RUN", "1", expected)
        return settings


def read(declared: Mapping[str, Setting[Any]], environment: Mapping[str, str]) -> dict[str, Any]:
    """The values of all these settings, by field.  Raises `BadSetting` for the first that is malformed."""
    return {field: setting.read(environment) for field, setting in declared.items()}
