"""vpopmail as a plug-in of cvm-qmail.

Law: what is not vpopmail's costs nothing: neither a file nor, in command mode, an import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvm_qmail.answer import Answer
from cvm_qmail.lookups import Delivery, Plugin
from cvm_qmail.settings import Settings
from cvm_qmail.tables import Tables
from cvm_vpopmail.rules.records import is_domain_record
from cvm_vpopmail.settings import Vpopmail

if TYPE_CHECKING:
    from cvm_vpopmail.lookup import Host


def plugin(tables: Tables, settings: Settings) -> Plugin:
    """The plug-in: what vdelivermail would do.  Raises `BadSetting`."""
    host: Host | None = None

    def made() -> Host:
        nonlocal host
        if host is None:
            from cvm_vpopmail.lookup import Host

            host = Host.of(tables, settings)
        return host

    def program(delivery: Delivery) -> Answer | None:
        content = delivery.file.file.content
        if not is_domain_record(delivery.user, delivery.local) and b"vdelivermail" not in (content or b""):
            return None
        outcome = made().judge(delivery)
        return None if outcome is None else outcome.answer

    Vpopmail.from_settings(settings)  # what is wrong with them is said now
    assumptions = made().assumed() if tables.lasting else ()
    return Plugin(program, repeatable=True, assumptions=assumptions)
