"""The settings of the module `cvm-vmailmgr`, which are those of the C program.

Source: cvm 0.97, cvm-vmailmgr.c (cvm_module_init).
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from cvm_qmail.plugin import Settings
from cvm_qmail.settings import Setting, read


def _bytes(default: bytes) -> Any:
    return lambda text: default if text is None else os.fsencode(text)


SETTINGS: dict[str, Setting[Any]] = {
    "table": Setting(
        "VMAILMGR_PWFILE", "passwd.cdb", _bytes(b"passwd.cdb"), "the table of virtual users, below the owner's home"
    ),
    "default": Setting(
        "VMAILMGR_DEFAULT",
        "+",
        _bytes(b"+"),
        "in lookups: the user that is used for all names that are not in the table",
    ),
    "lock_disabled": Setting(
        "VMAILMGR_LOCK_DISABLED",
        "unset",
        lambda text: text is not None,
        "set to any value: users whose mailbox is disabled cannot log in",
    ),
}


class Vmailmgr(NamedTuple):
    """The values of these settings."""

    table: bytes
    default: bytes
    lock_disabled: bool

    @classmethod
    def from_settings(cls, settings: Settings) -> Vmailmgr:
        """Raises `BadSetting`."""
        return cls(**read(SETTINGS, settings.environment))
