"""Every kind of mistake that lint and its relatives name: an identifier, and what it means.

The table of docs/cvmctl.md is made from here and from what extensions add.  To add one: use it in a `Finding`, add
a row here (or to the extension's `kinds`), plant it in a test, run scripts/reference.
"""

from __future__ import annotations

from collections.abc import Mapping

from cvm_qmail.cvmctl.extension import extensions

KINDS: Mapping[str, str] = {
    "control-unreadable": "a control file that cannot be read: qmail-send does not start with it",
    "control-me-missing": "no control/me, which qmail-send needs to start",
    "control-syntax": "a line that does not mean what was probably intended: blanks, carriage returns, no colon, `*`",
    "virtualdomains-overridden": "an entry of virtualdomains that a later one overrides",
    "virtualdomains-no-user": "an entry of virtualdomains whose user does not exist, or has no address for it",
    "local-and-virtual": "a domain in locals and in virtualdomains",
    "rcpthosts-missing": "no rcpthosts: an open relay",
    "rcpthosts-not-ours": "a domain in rcpthosts that is neither local nor virtual; an entry `domain:` in"
    " virtualdomains says that this is intended",
    "morercpthosts-stale": "morercpthosts.cdb older than morercpthosts",
    "assign-syntax": "a line of users/assign that qmail-newu rejects",
    "assign-duplicate": "a line of users/assign that an earlier one hides",
    "assign-capital": "a line of users/assign with a capital letter, which is never found",
    "assign-user": "a line of users/assign with uid 0, or a home that is not absolute",
    "cdb-stale": "users/cdb missing, or older than users/assign",
    "cdb-different": "users/cdb with other entries than users/assign",
    "cdb-damaged": "users/cdb is damaged",
    "no-alias": "the account alias is missing",
    "no-postmaster": "the address postmaster is missing",
    "account-skipped": "an account that qmail skips: the home belongs to somebody else, a capital letter, a long name",
    "home": "a home that is missing or cannot be read: all mail for its user waits",
    "home-denied": "a home that its user may not enter: all mail waits",
    "home-writable": "a home that others may write to: all mail waits",
    "home-sticky": "a home with the sticky bit: all mail waits",
    "dotqmail-writable": "a `.qmail` file that others may write to: mail for its addresses waits",
    "dotqmail-denied": "a `.qmail` file that its user may not read: mail for its addresses waits",
    "dotqmail-blank": "a `.qmail` file that begins with a blank line: mail for its addresses waits",
    "dotqmail-forward-only": "a program or file line in a `.qmail` file that may have only forwards: mail waits",
    "dotqmail-unreachable": "a `.qmail` file with a capital letter or a dot in its name: no address reaches it",
    "dotqmail-dangling": "a `.qmail` file that is a dangling symbolic link",
    "dotqmail-not-plain": "a `.qmail` file that is not a regular file: qmail skips it",
    "forward-to-nobody": "a line that forwards to a local address that does not exist",
    "forward-loop": "files that forward to themselves, perhaps through other files",
    "catch-all-loop": "a catch-all that forwards to itself, perhaps through other files",
    "table-missing": "a table of fastforward or vmailmgr that does not exist",
    "table-damaged": "a table of fastforward or vmailmgr that is damaged",
    "table-unreadable": "a table of fastforward or vmailmgr that its user may not read",
    "table-stale": "a table of fastforward that is older than its source file (`t`, `t.fwd`, `t.txt` beside `t.cdb`;"
    " `/etc/aliases`)",
    "virtual-user-damaged": "a record of vmailmgr that vdeliver cannot read",
    "target-to-nobody": "a target of fastforward that forwards only to local addresses that would be rejected",
    "program-missing": "a program that does not exist, or is not in a directory where qmail finds programs by name",
    "label-missing": "with CVM_QMAIL_BRANCH=1, a `?LABEL` without a `:LABEL` further down",
    "branch-off": "without CVM_QMAIL_BRANCH, a line that only the qmail-branch patch understands",
    "route-missing": "with `--routes`: a domain of rcpthosts or morercpthosts without a route",
    "route-unknown": "with `--routes`: a route to a module that does not know the domain",
}


def all_kinds() -> dict[str, str]:
    """Those of this package and of every extension that is installed."""
    found = dict(KINDS)
    for extension in extensions():
        found.update(extension.kinds)
    return found
