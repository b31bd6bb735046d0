"""The module `cvm-vpopmail`: vpopmail domains, their accounts and passwords.

Invariants: the lookup is cvm-qmail's own with the plug-in, for controlling users that are vpopmail domains; all else
is out of scope.  Logins follow vchkpw's rules.
"""

from __future__ import annotations

from collections.abc import Iterator

from cvm_qmail.answer import Answer
from cvm_qmail.entry_points import installed, load_programs
from cvm_qmail.plugin import Delivery, Module, Plugin
from cvm_qmail.qmail import qmail
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables
from cvm_vpopmail.authentication import Authentication, facts
from cvm_vpopmail.host import Host, assumptions
from cvm_vpopmail.rules.records import is_domain_record


def module(tables: Tables, settings: Settings) -> Module:
    """The module `cvm-vpopmail`: vpopmail domains, their accounts and passwords.  Raises `BadSetting`."""
    host = Host.of(tables, settings)

    def program(delivery: Delivery) -> Answer | None:
        outcome = host.judge(delivery)
        if outcome is None or outcome.account is None or outcome.domain is None:
            return None if outcome is None else outcome.answer
        return outcome.answer._replace(facts=facts(outcome.account, outcome.domain, delivery.recipient.domain))

    own = settings._replace(lookaside=frozenset())  # CVM_QMAIL_LOOKASIDE of cvm-qmail leads to this module
    plugins = [Plugin(program, repeatable=True, network=host.backend.network), *_other_programs(tables, own)]
    made = qmail(tables, own, plugins, ours=is_domain_record)
    return Module(
        made.lookup,
        Authentication(host),
        repeatable=True,
        assumptions=tuple(assumptions(host.policy)),
        network=made.network,
    )


def _other_programs(tables: Tables, settings: Settings) -> Iterator[Plugin]:
    """Other plug-ins, for the other lines of a file: a fastforward before vdelivermail, for example."""
    names = tuple(sorted(installed("cvm_qmail.programs"))) if settings.programs is None else settings.programs
    others = settings._replace(programs=tuple(name for name in names if name != "vpopmail"))
    for plugin in load_programs(tables, others):
        if plugin.run is not None:
            yield plugin._replace(program=None)
