"""vpopmail as a plug-in of cvm-qmail.

Invariants: an address that is not vpopmail's costs nothing: neither a file nor, in command mode, an import.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from cvm_qmail.answer import Answer
from cvm_qmail.plugin import Delivery, Plugin
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables
from cvm_vpopmail.rules.records import concerns

if TYPE_CHECKING:
    from cvm_vpopmail.host import Host


def plugin(tables: Tables, settings: Settings) -> Plugin:
    """The plug-in: what vdelivermail would do.  Raises `BadSetting`, also for a setting that is used later."""

    @cache
    def host() -> Host:
        from cvm_vpopmail.host import Host

        return Host.of(tables, settings)

    def program(delivery: Delivery) -> Answer | None:
        if not concerns(delivery):
            return None
        outcome = host().judge(delivery)
        return None if outcome is None else outcome.answer

    if any("VPOPMAIL_" in name for name in settings.environment):  # without one there is nothing to check
        from cvm_vpopmail.settings import Vpopmail

        Vpopmail.from_settings(settings)  # raises now, not at the first address
    if not tables.lasting:
        return Plugin(program, repeatable=True)
    return Plugin(program, repeatable=True, assumptions=host().assumed(), network=host().backend.network)
