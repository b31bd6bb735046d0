"""The parts of a list: places, candidates for their local parts, and the entries that are accepted.

Source: dot-qmail(5), qmail-send(8).
"""

from __future__ import annotations

from typing import NamedTuple

from cvm_qmail.cvmctl.host.verdicts import PROBE


class Candidate(NamedTuple):
    """A local part that qmail-lspawn might be asked for."""

    local: bytes
    pattern: bool
    """Whether it stands for all local parts that begin with it."""


class Place(NamedTuple):
    """A domain with what virtualdomains prepends to its local parts."""

    domain: bytes
    """An entry of virtualdomains that begins with a dot, or is empty, stands for many."""
    prepend: bytes | None
    """None: a local domain."""

    @property
    def wild(self) -> bool:
        """Whether it stands for many."""
        return self.prepend is not None and self.domain[:1] in (b"", b".")

    @property
    def example(self) -> bytes:
        """A domain that it stands for."""
        return PROBE + (self.domain or b".invalid") if self.wild else self.domain


class Entry(NamedTuple):
    """A line of the list."""

    local: bytes
    pattern: bool
    domain: bytes
    wild: bool

    @property
    def example(self) -> bytes:
        """A local part that it stands for."""
        return self.local + PROBE if self.pattern else self.local
