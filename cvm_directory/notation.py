r"""How names are written in the directory: as text that any client of a database can read and compare.

    joe             an address
    joe-*           every address that begins with joe-
    *               every address of the domain
    example.org     a domain
    *.w.example     every domain that ends so; * every domain

Invariants: printable ASCII without blanks, so that no collation makes two names one.  Any other byte, the
backslash, and a ``*`` that is part of a name become ``\x`` and two digits.  Different names are written differently.
"""

from __future__ import annotations

import re

from cvm_qmail.escape import escape

ANYTHING = "*"

_STAR = r"\x2a"
_UNIT = re.compile(r"\\x..|.")


def written(name: bytes) -> str:
    """A local part or a domain."""
    text = escape(name)
    return text.replace(ANYTHING, _STAR) if ANYTHING in text else text


def of_local(local: bytes, *, pattern: bool) -> str:
    """A local part, or the beginning of many."""
    return written(local) + ANYTHING if pattern else written(local)


def of_domain(domain: bytes, *, wild: bool) -> str:
    """A domain, or the end of many."""
    return ANYTHING + written(domain) if wild else written(domain)


def units(text: str) -> list[str]:
    """The text in parts, of which each stands for one byte."""
    return _UNIT.findall(text)


def ending(pattern: str) -> str:
    """The last of the `units` before the star of a pattern; empty: there is nothing before it."""
    return units(pattern[:-1])[-1] if len(pattern) > 1 else ""
