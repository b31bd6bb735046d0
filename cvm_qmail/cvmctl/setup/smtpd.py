"""How a qmail-smtpd can ask about a recipient: found by strings in the program, which is never run.

Source: the programs named in docs/mail-servers; each word is a string that only the patched program contains.
"""

from __future__ import annotations

from typing import NamedTuple

from cvm_qmail.cvmctl.setup.tree import Tree

LIMIT = 1 << 24
"""Bytes of a program that are searched."""


class Patch(NamedTuple):
    """A patch of qmail-smtpd."""

    name: str
    word: bytes
    """The string that a patched program contains."""
    page: str
    """The page that says how it asks; empty: it cannot ask."""
    note: str = ""


PATCHES = (
    Patch("rcptchecks", b"control/rcptchecks", "notqmail.md"),
    Patch("qmail-spp", b"control/smtpplugins", "qmail-spp.md"),
    Patch("RCPTCHECK", b"RCPTCHECK\0", "rcptcheck.md"),
    Patch("recipients", b"control/recipients", "sqmail.md"),
    Patch("qmail-verify", b"qv temporary failure", "qmail-verify.md"),
    Patch("chkuser", b"CHKUSER_START", "", "switch it off with CHKUSER_START=NONE once cvm-qmail is asked"),
    Patch("realrcptto", b"QMAILRRTDENYALL", "", "it cannot ask: use RCPTCHECK or qmail-spp"),
    Patch("validrcptto", b"control/validrcptto.cdb", "", "an exported list; cvmctl list can write it"),
)
"""In the order in which they are recommended."""


def patches(tree: Tree, qmail: str) -> list[Patch] | None:
    """The patches of qmail-smtpd; None: there is no qmail-smtpd."""
    program = tree.read(f"{qmail}/bin/qmail-smtpd", LIMIT)
    return None if program is None else [patch for patch in PATCHES if patch.word in program]
