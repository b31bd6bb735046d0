"""vpopmail as a plug-in of cvm-qmail.

Invariants: an address that is not vpopmail's costs nothing: neither a file nor, in command mode, an import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvm_qmail.answer import Answer
from cvm_qmail.plugin import Delivery, Plugin
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables
from cvm_vpopmail.rules.records import is_domain_record
from cvm_vpopmail.settings import Vpopmail

if TYPE_CHECKING:
    from cvm_vpopmail.host import Host


def plugin(tables: Tables, settings: Settings) -> Plugin:
    """The plug-in: what vdelivermail would do.  Raises `BadSetting`, also for a setting that is used later."""
    host: Host | None = None

    def made() -> Host:
        nonlocal host
        if host is None:
            from cvm_vpopmail.host import Host

            host = Host.of(tables, settings)
        return host

    def program(delivery: Delivery) -> Answer | None:
        content = delivery.file.file.content
        if not is_domain_record(delivery.user, delivery.local) and b"vdelivermail" not in (content or b""):
            return None
        outcome = made().judge(delivery)
        return None if outcome is None else outcome.answer

    Vpopmail.from_settings(settings)  # raises now, not at the first address
    if not tables.lasting:
        return Plugin(program, repeatable=True)
    return Plugin(program, repeatable=True, assumptions=made().assumed(), network=made().backend.network)
