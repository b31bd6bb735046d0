"""Every setting of vpopmail, for documents and ``--help-settings``: the entry point of ``cvm_qmail.settings``."""

from __future__ import annotations

from typing import Any

from cvm_qmail.settings import Setting
from cvm_vpopmail import settings, sqlconfig

SETTINGS: dict[str, Setting[Any]] = {**settings.SETTINGS, **sqlconfig.SETTINGS, **sqlconfig.LIFETIMES}
