"""The mistakes on a qmail host that make mail bounce or wait, and how each is found.

    context     what the rules read of a host, and what they find
    controls    control files
    assign      users/assign and users/cdb
    accounts    the system's accounts
    homes       homes and their .qmail files
    forwards    where mail goes from there
    routes      a gateway's routes, where lint is told of them

Plug-ins add rules through their extensions.

Invariants: a rule is a generator of findings over one `LintContext` of the host.  It changes nothing; whether an
address exists is decided by the server's own lookup.  If something cannot be read, the rule raises
`Unavailable`, which ends this rule only; the caller reports it.
"""

from __future__ import annotations

from cvm_qmail.cvmctl.lint import accounts, assign, controls, forwards, homes
from cvm_qmail.cvmctl.lint.context import LintContext, Rule

__all__ = ["RULES", "LintContext", "Rule"]

RULES: tuple[Rule, ...] = (
    controls.unreadable_controls,
    controls.control_syntax,
    controls.duplicates,
    controls.both,
    controls.nobody,
    controls.rcpthosts,
    assign.assign,
    assign.cdb,
    accounts.accounts,
    homes.homes,
    forwards.missing_targets,
    forwards.loops,
    forwards.postmaster,
)
"""In this order: those about forwards use what `homes` has visited."""
