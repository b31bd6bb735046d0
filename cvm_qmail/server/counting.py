"""The file in which a server counts, and its information about the server.

Invariants: everybody on the host may read it, so it contains no address, no path of a user's home and no secret.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Mapping
from typing import Any

from cvm_qmail import __version__
from cvm_qmail.entry_points import all_settings
from cvm_qmail.observe.counters import WORDS
from cvm_qmail.observe.stats import SUFFIX, About, StatsFile
from cvm_qmail.settings import Invalid, Setting, Settings

SPARES = 2
"""Spare workers for each worker; they have columns too."""


def open_stats(program: str, settings: Settings, address: str, warn: Callable[[str], None]) -> StatsFile | None:
    """The file in which the server at `address` counts; None if it does not or cannot count."""
    path = settings.stats
    if path is None and address.startswith("/"):
        path = address + SUFFIX
    if not path:
        return None
    about = About(
        program=program,
        version=__version__,
        address=address,
        pid=os.getpid(),
        started=time.time(),
        user=_user(),
        sandbox=settings.sandbox,
        workers=settings.workers,
        settings=given(settings),
        words=WORDS,
    )
    try:
        return StatsFile(path, about, settings.workers * (1 + SPARES))
    except OSError as error:
        warn(f"no counters: {path}: {error.strerror}")
        return None


def given(settings: Settings) -> dict[str, str]:
    """The settings that differ from their defaults, in the order of their names; of a secret only that it is set."""
    every = {setting.name: setting for declared in all_settings().values() for setting in declared.values()}
    environment = settings.environment
    return {
        name: "(set)" if every[name].secret else environment[name]
        for name in sorted(every)
        if _differs(every[name], environment)
    }


def _differs(setting: Setting[Any], environment: Mapping[str, str]) -> bool:
    """Whether its value is not the default."""
    if setting.name not in environment:
        return False
    try:
        return bool(setting.parse(environment[setting.name]) != setting.parse(None))
    except Invalid:
        return True  # of a part that does not run here


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
