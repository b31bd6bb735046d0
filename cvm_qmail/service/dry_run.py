"""CVM_DRY_RUN: a recipient that would be rejected is accepted, and logged with the reason of the rejection.

Invariants: only rejections change.  Out of scope stays out of scope (else the server would relay), a
temporary failure stays one, and an address with a NUL, which no mail can have, stays rejected.  The
log's reason is that of the rejection; its detail says that this is a dry run.  There is no dry run where passwords
are checked: `Settings` rejects it.

Clients require facts of an acceptance.  They are those of the controlling user if the module returns them with its
rejection, as cvm-qmail does in a dry run; else the alias account's.
"""

from __future__ import annotations

from cvm_qmail.answer import Facts, Recipient
from cvm_qmail.qmail import alias_facts
from cvm_qmail.service.service import DryRun
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables


def dry_run_facts(tables: Tables, settings: Settings) -> DryRun:
    """Makes the function that returns the facts to accept a rejection with.  That function raises `Unavailable`."""

    def facts_for(recipient: Recipient, facts: Facts | None) -> Facts | None:
        account, domain = recipient
        if b"\0" in account or (domain and b"\0" in domain):
            return None
        return facts or alias_facts(tables, settings, (domain or b"").lower())

    return facts_for
