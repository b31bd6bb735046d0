"""CVM_DRY_RUN: what would be refused is accepted, and logged as what it is.

Law: only rejections change.  What is out of scope stays so (else we would relay), a trouble stays a
trouble, and an address with a NUL, which no mail can have, stays refused.  The log's reason is that of
the rejection; its detail says that this is a dry run.  There is none where passwords are checked: the
settings see to that.

Clients demand facts of an acceptance.  They are those of the controlling user where the module gives
them with its rejection, as cvm-qmail does in a dry run; else the alias account's.
"""

from __future__ import annotations

from cvm_qmail.answer import Facts, Recipient
from cvm_qmail.lookups import alias_facts
from cvm_qmail.responder import Pardon
from cvm_qmail.settings import Settings
from cvm_qmail.tables import Tables


def pardoner(tables: Tables, settings: Settings) -> Pardon:
    """What a responder turns rejections into acceptances with."""

    def pardon(recipient: Recipient, facts: Facts | None) -> Facts | None:
        account, domain = recipient
        if b"\0" in account or (domain and b"\0" in domain):
            return None
        return facts or alias_facts(tables, settings, (domain or b"").lower())

    return pardon
