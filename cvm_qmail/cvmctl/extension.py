"""What plug-ins add to cvmctl: entry points ``cvm_qmail.helpers``.

Invariants: an extension decides nothing.  It puts into words what its plug-in asked of `Tables`, names what is
worth asking about for a list, and finds mistakes of its own kind.  A plug-in without one works: its
questions are shown plainly, and a list that would need its names is refused, not written without them.

    extension = Extension(...)            in cvm_vpopmail.cvmctl
    [project.entry-points."cvm_qmail.helpers"]
    vpopmail = "cvm_vpopmail.cvmctl:extension"
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from cvm_qmail.entry_points import installed
from cvm_qmail.rules.users import User
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables

if TYPE_CHECKING:
    from cvm_qmail.cvmctl.host.findings import Finding
    from cvm_qmail.cvmctl.lint.context import LintContext
    from cvm_qmail.cvmctl.listing.entries import Candidate
    from cvm_qmail.cvmctl.trace.capture import Case


def _no_words(_table: str, _key: Any, _value: Any) -> str | None:
    return None


def _no_instruction(_line: bytes) -> str | None:
    return None


def _no_names(_tables: Tables, _settings: Settings, _user: User) -> Iterable[Candidate] | None:
    return None


class Extension(NamedTuple):
    """What a plug-in adds; each part may be left out."""

    words: Callable[[str, Any, Any], str | None] = _no_words
    """A question and its answer (table, key, value) in words, without secrets; None: not mine."""
    instruction: Callable[[bytes], str | None] = _no_instruction
    """A program line of a .qmail file in words, without secrets; None: not mine."""
    names: Callable[[Tables, Settings, User], Iterable[Candidate] | None] = _no_names
    """The extensions that might exist below a user of users/cdb; None: not mine.  May raise `Unavailable`."""
    remedies: Mapping[str, Callable[[Case], Iterator[str]]] = {}
    """Advice by the reason word of a rejection or temporary failure."""
    rules: tuple[Callable[[LintContext], Iterator[Finding]], ...] = ()
    """Mistakes that `cvmctl lint` looks for."""
    kinds: Mapping[str, str] = {}
    """The kinds of mistakes that the rules find, each with its meaning."""


@cache
def extensions() -> tuple[Extension, ...]:
    """Those of the installed plug-ins."""
    found = installed("cvm_qmail.helpers")
    loaded: list[Any] = [found[name]() for name in sorted(found)]
    return tuple(loaded)
