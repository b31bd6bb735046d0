"""The mistakes on a qmail host that make mail bounce or wait, and how each is found.

    sight       what there is to see of a host, and what is found
    controls    control files
    assign      users/assign and users/cdb
    accounts    the system's accounts
    homes       homes and their .qmail files
    forwards    where mail goes from there

What plug-ins add comes by their helpers.

Law: a rule is a generator of findings over one `Sight` of the host; it changes nothing and decides no
address: whether one exists is the server's own look-up's to say.  What cannot be read raises
`Unavailable` and ends that rule only; the caller says that it could not be told.
"""

from __future__ import annotations

from cvm_qmail.tool.mistakes import accounts, assign, controls, forwards, homes
from cvm_qmail.tool.mistakes.sight import Finding, Rule, Sight

__all__ = ["RULES", "Finding", "Rule", "Sight"]

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
"""In this order; those about forwards look at what `homes` has visited."""
