"""Environment to `Settings`: each variable explained once, read once, checked at start.

Law: nothing else reads the environment.  A malformed value is a `BadSetting` at start, never a
surprise later.  docs/settings.md is checked against `VARIABLES` by a test.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple


class BadSetting(Exception):
    """A setting that cannot be used: its name, what was found, what was expected."""

    def __init__(self, name: str, found: str, expected: str) -> None:
        super().__init__(f"{name}: found {found!r}, expected {expected}")


class Variable(NamedTuple):
    """One environment variable."""

    name: str
    default: str
    meaning: str


VARIABLES = (
    Variable("QMAIL_ROOT", "/var/qmail", "the qmail home"),
    Variable(
        "CVM_LOOKUP_SECRET",
        "unset",
        "the secret that clients must show; empty: none is wanted; unset: authentication mode",
    ),
    Variable("CVM_SOCKET_MODE", "0777", "mode of the socket, octal"),
    Variable("CVM_SOCKET_OWNER", "unset", "owner of the socket, name or uid; a name also sets the group"),
    Variable("CVM_SOCKET_GROUP", "unset", "group of the socket, name or gid"),
    Variable(
        "CVM_LOCAL_TIMEOUT",
        "1000",
        "milliseconds for a client to send its request, and to take its answer; 0: the default",
    ),
    Variable("CVM_LOOKUP_TIMEOUT", "5000", "milliseconds for a look-up; then the answer is temporary"),
    Variable("CVM_WORKERS", "one per core, at least 2", "number of worker processes"),
    Variable("CVM_LOG", "text", "log lines as text or json"),
    Variable("CVM_QMAIL_ASSUME_LOCAL", "unset", "set, even empty: a domain that virtualdomains does not have is local"),
    Variable(
        "CVM_QMAIL_MISSINGDOMAIN", "unset", "the domain to answer with for a domain out of scope; empty: localhost"
    ),
    Variable("CVM_QMAIL_MISSINGUSER", "alias", "the account to look up instead when the domain was replaced"),
    Variable(
        "CVM_QMAIL_LOOKASIDE",
        "unset",
        "programs (first words after | in .qmail files) whose addresses another module judges",
    ),
    Variable("CVM_QMAIL_CHECK_PERMS", "unset", "starting with -: a refused access is permanent instead of temporary"),
    Variable("CVM_QMAIL_BREAK", "-", "conf-break of the qmail build: one byte"),
    Variable("CVM_QMAIL_ALIAS", "alias", "name of the alias account (conf-users)"),
    Variable("CVM_QMAIL_MASK", "002", "conf-patrn of the qmail build, octal: modes that make qmail-local defer"),
    Variable(
        "CVM_QMAIL_PROGRAMS",
        "all",
        "plug-ins for what a .qmail file hands over to: names separated by spaces; empty: none",
    ),
    Variable("CVM_SHADOW", "unset", "another module, asked the same after each answer; differences are logged"),
    Variable("CVM_DRY_RUN", "0", "1: what would be refused is accepted, and logged"),
    Variable("NSS_WRAPPER_PASSWD", "unset", "takes the place of /etc/passwd (for tests with libnss-wrapper)"),
)


class Settings(NamedTuple):
    """The settings of a module, and the environment for plug-ins to find their own in."""

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
    passwd: str | None
    shadow: str | None
    dry_run: bool
    environment: Mapping[str, str]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Raises `BadSetting`."""
        env = os.environ if environment is None else environment
        return cls(
            qmail_root=_folder(env, "QMAIL_ROOT", b"/var/qmail"),
            lookup_secret=_bytes(env, "CVM_LOOKUP_SECRET"),
            socket_mode=_octal(env, "CVM_SOCKET_MODE", 0o777),
            socket_owner=env.get("CVM_SOCKET_OWNER") or None,
            socket_group=env.get("CVM_SOCKET_GROUP") or None,
            local_timeout=(_number(env, "CVM_LOCAL_TIMEOUT", 1000, 0, 3_600_000) or 1000) / 1000,
            lookup_timeout=_number(env, "CVM_LOOKUP_TIMEOUT", 5000, 1, 3_600_000) / 1000,
            workers=_number(env, "CVM_WORKERS", max(2, len(os.sched_getaffinity(0))), 1, 1024),
            log=_choice(env, "CVM_LOG", "text", ("text", "json")),
            assume_local="CVM_QMAIL_ASSUME_LOCAL" in env,
            missing_domain=None
            if (domain := _bytes(env, "CVM_QMAIL_MISSINGDOMAIN")) is None
            else domain or b"localhost",
            missing_user=_bytes(env, "CVM_QMAIL_MISSINGUSER") or b"alias",
            lookaside=frozenset((_bytes(env, "CVM_QMAIL_LOOKASIDE") or b"").split(b" ")) - {b""},
            denied_is_permanent=env.get("CVM_QMAIL_CHECK_PERMS", "").startswith("-"),
            breakchar=_matching(env, "CVM_QMAIL_BREAK", b"-", rb"[^\0]", "one byte"),
            alias=_matching(env, "CVM_QMAIL_ALIAS", b"alias", rb"[^:/\0\n]+", "the name of an account"),
            mask=_octal(env, "CVM_QMAIL_MASK", 0o002),
            programs=None
            if (names := env.get("CVM_QMAIL_PROGRAMS")) is None or names == "all"
            else tuple(names.split()),
            passwd=env.get("NSS_WRAPPER_PASSWD") or None,
            shadow=env.get("CVM_SHADOW") or None,
            dry_run=_dry_run(env),
            environment=env,
        )

    # -- for plug-ins, which find their own variables in `environment` ------------------------------

    def folder(self, name: str, default: bytes) -> bytes:
        """An absolute path.  Raises `BadSetting`, as all of these."""
        return _folder(self.environment, name, default)

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number."""
        return _number(self.environment, name, default, least, most)

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        """One of several words."""
        return _choice(self.environment, name, default, choices)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """``1`` or ``0``."""
        return _choice(self.environment, name, str(int(default)), ("0", "1")) == "1"


def _bytes(env: Mapping[str, str], name: str) -> bytes | None:
    value = env.get(name)
    return None if value is None else os.fsencode(value)


def _folder(env: Mapping[str, str], name: str, default: bytes) -> bytes:
    value = _bytes(env, name) or default
    if not value.startswith(b"/"):
        raise BadSetting(name, os.fsdecode(value), "a path that starts with /")
    return value.rstrip(b"/") or b"/"


def _number(env: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = env.get(name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or not least <= (number := int(text.lstrip("0")[:12] or "0")) <= most:
        raise BadSetting(name, text, f"a whole number from {least} to {most}")
    return number


def _octal(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name)
    if not text:
        return default
    if not re.fullmatch("[0-7]{1,5}", text) or int(text, 8) > 0o7777:
        raise BadSetting(name, text, "a mode as one to four octal digits, like 0770")
    return int(text, 8)


def _choice(env: Mapping[str, str], name: str, default: str, choices: tuple[str, ...]) -> str:
    text = env.get(name) or default
    if text not in choices:
        raise BadSetting(name, text, "one of " + ", ".join(choices))
    return text


def _dry_run(env: Mapping[str, str]) -> bool:
    wanted = _choice(env, "CVM_DRY_RUN", "0", ("0", "1")) == "1"
    if wanted and "CVM_LOOKUP_SECRET" not in env:  # a wrong password would be as good as the right one
        raise BadSetting(
            "CVM_DRY_RUN", "1", "CVM_LOOKUP_SECRET beside it: a dry run is for look-ups, not for passwords"
        )
    return wanted


def _matching(env: Mapping[str, str], name: str, default: bytes, pattern: bytes, expected: str) -> bytes:
    value = _bytes(env, name) or default
    if not re.fullmatch(pattern, value, re.DOTALL):
        raise BadSetting(name, env[name], expected)
    return value
