"""Which modules are asked about which domain: lines as in qmail's smtproutes.

    example.org:cvm-udp:192.0.2.7:7890
    .example.org:https://mail1.example.net/,https://mail2.example.net/
    :cvm-local:/run/cvm-rcptto/socket

The domain itself, then ever shorter ends of it that begin with a dot, then the empty domain, which is the default;
upper and lower case are the same.  Lines that are empty or begin with ``#`` are ignored, and so are blanks at the end
of a line.

Invariants: a file with a mistake is not used at all: with half of the routes, addresses in the other half could be
rejected.

Source: qmail 1.03 (qmail-remote.c, main: smtproutes; control.c).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from cvm_qmail.settings import Invalid
from cvm_qmail.transports.datagram import split

MODULES_LIMIT = 8
"""Modules of one domain."""

_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?)(?::[0-9]{1,5})?")

EXPECTED = "cvm-local:PATH with an absolute path of at most 107 bytes, or cvm-udp:HOST:PORT"


class Mistake(NamedTuple):
    """A mistake in a file."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}"


class Mistakes(Exception):
    """The file is not a valid file of routes."""

    def __init__(self, found: list[Mistake]) -> None:
        super().__init__("; ".join(map(str, found[:3])))
        self.found = found


class Routes(NamedTuple):
    """Modules by domain."""

    modules: dict[bytes, tuple[str, ...]]

    def of(self, domain: bytes | None) -> tuple[str, ...]:
        """The modules to ask about a domain, in their order; none: it has no route."""
        name = (domain or b"").lower()
        found = self.modules.get(name)
        at = name.find(b".")
        while found is None and at >= 0:
            found = self.modules.get(name[at:])
            at = name.find(b".", at + 1)
        return found or self.modules.get(b"", ())

    @property
    def names(self) -> list[str]:
        """All modules, each once, in their order."""
        return list(dict.fromkeys(module for modules in self.modules.values() for module in modules))


def parse(text: bytes) -> Routes:
    """The routes in a file.  Raises `Mistakes`."""
    modules: dict[bytes, tuple[str, ...]] = {}
    mistakes: list[Mistake] = []
    for number, line in _lines(text):
        try:
            domain, found = _route(line)
            if domain in modules:
                raise Invalid(f"{domain.decode('ascii', 'backslashreplace') or 'the default'} has a route already")
            modules[domain] = found
        except Invalid as bad:
            mistakes.append(Mistake(number, str(bad)))
    if mistakes:
        raise Mistakes(mistakes)
    return Routes(modules)


def _lines(text: bytes) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(text.split(b"\n"), 1):
        kept = line.rstrip(b" \t")
        if kept and not kept.startswith(b"#"):
            yield number, kept


def _route(line: bytes) -> tuple[bytes, tuple[str, ...]]:
    domain, colon, rest = line.partition(b":")
    if not colon:
        raise Invalid("expected DOMAIN:MODULE[,MODULE...]")
    if len(domain) > 255 or re.search(rb"[\0-\x20@/\x7f]", domain):
        raise Invalid("not a domain before the first colon")
    if re.search(rb"[\0-\x1f\x7f]", rest):
        raise Invalid("a control character")
    names = [name.strip() for name in os.fsdecode(rest).split(",")]
    if len(names) > MODULES_LIMIT:
        raise Invalid(f"{len(names)} modules, expected at most {MODULES_LIMIT}")
    found = tuple(module(name) for name in names)
    if len(set(found)) < len(found):
        raise Invalid("the same module twice")
    return domain.lower(), found


def module(name: str) -> str:
    """The name of a module, checked.  Raises `Invalid`."""
    if not name.startswith("https:"):
        try:
            return cvm_module(name)
        except Invalid as bad:
            raise Invalid(f"expected {bad}, or https://HOST/") from None
    rest = name.removeprefix("https://")
    if rest == name or not _HOST.fullmatch(rest.removesuffix("/")):
        raise Invalid("expected https://HOST/ or https://HOST:PORT/ without a path")
    return f"https://{rest.removesuffix('/')}/"


def cvm_module(name: str) -> str:
    """The name of a CVM module, checked.  Raises `Invalid` with what was expected."""
    scheme, _, address = name.partition(":")
    if scheme == "cvm-local" and address.startswith("/") and len(os.fsencode(address)) < 108:
        return f"{scheme}:{address}"
    if scheme == "cvm-udp":
        try:
            split(address)
        except ValueError as error:
            raise Invalid(f"cvm-udp:HOST:PORT ({error})") from None
        return f"{scheme}:{address}"
    raise Invalid(EXPECTED)
