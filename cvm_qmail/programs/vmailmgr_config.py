"""vmailmgr's own settings, one file for each: a domain owner's in ~/.vmailmgr, else the host's in /etc/vmailmgr.

Invariants: the first line that is not blank is used; if there is none, the next directory is.  An answer that depends
on the host's directory is repeated only while that is unchanged.

Source: vmailmgr's lib/config (config_read.cc, read_str.cc, configrc.in), lib/misc/exec.cc.
"""

import os
from typing import Any, NamedTuple, Self

from cvm_qmail.plugin import Delivery, FileAccess, Settings, Tables
from cvm_qmail.settings import Setting, choice, path, read

OWN = b".vmailmgr"

SETTINGS: dict[str, Setting[Any]] = {
    "directory": Setting(
        "CVM_VMAILMGR_DIR", "/etc/vmailmgr", path(b"/etc/vmailmgr"), "the directory of vmailmgr's system-wide settings"
    ),
    "locked": Setting(
        "CVM_VMAILMGR_LOCKED",
        "accept",
        choice("accept", "reject"),
        "mail that vdeliver throws away, since the user has no mailbox or a disabled one, and no forwards: accept or"
        " reject",
    ),
}


class Policy(NamedTuple):
    """The settings of this check."""

    directory: bytes = b"/etc/vmailmgr"
    locked: str = "accept"

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Raises `BadSetting`."""
        return cls(**read(SETTINGS, settings.environment))


class Configuration:
    """vmailmgr's settings for one owner's domains."""

    def __init__(self, policy: Policy, delivery: Delivery, tables: Tables, files: FileAccess) -> None:
        """`files`: with the owner's rights."""
        self._host = policy.directory
        self._own = b"%s/%s" % (delivery.user.home, OWN)
        self._tables = tables
        self._files = files
        self._there: bool | None = None

    def text(self, name: bytes, default: bytes) -> bytes:
        """A setting.  Raises `Unavailable` if its file cannot be read."""
        line = _first_line(self._files.file(b"%s/%s" % (self._own, name)))
        if not line and self._host_has_settings():
            line = _first_line(self._files.file(b"%s/%s" % (self._host, name)))
        return line or default

    def has_script(self, name: bytes) -> bool:
        """Whether there is a script of this name that vmailmgr would run."""
        directories = [self._own, *([self._host] if self._host_has_settings() else [])]
        found = (self._files.status(b"%s/%s" % (directory, name)) for directory in directories)
        return any(status is not None and status.mode & 0o111 for status in found)

    def _host_has_settings(self) -> bool:
        """Whether the host's directory exists: on most hosts it does not, and answers can be cached."""
        if self._there is None:
            self._there = self._tables.as_self(lambda: os.path.lexists(self._host))
            host = self._host
            if not self._there:
                self._tables.current.recheck_with(host, lambda: not os.path.lexists(host))
        return self._there


def _first_line(content: bytes | None) -> bytes:
    return (content or b"").split(b"\n", 1)[0].strip()
