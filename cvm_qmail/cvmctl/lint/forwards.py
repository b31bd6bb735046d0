"""Mistakes in where mail goes from a .qmail file.

Invariants: the rules here look at what `homes` has visited.

Source: dot-qmail(5), forward(1), qmail-local.c.
"""

from __future__ import annotations

from collections.abc import Iterator

from cvm_qmail.answer import Recipient, Verdict
from cvm_qmail.cvmctl.host.findings import Finding
from cvm_qmail.cvmctl.lint.context import LintContext
from cvm_qmail.cvmctl.lint.homes import instructions
from cvm_qmail.cvmctl.ui.output import text

_SHELL = frozenset(b"$'\"\\`|;&<>*?()[]{}~#")


def forwards(content: bytes) -> Iterator[tuple[int, Recipient]]:
    """The addresses that a .qmail file forwards to, with their lines."""
    for at, line in instructions(content):
        addresses: list[bytes] = []
        if line.startswith(b"|"):
            program, *words = line[1:].split() or [b""]
            if program.rpartition(b"/")[2] == b"forward" and not _SHELL.intersection(line[1:]):
                addresses = words
        elif line[:1] not in (b".", b"/", b"+"):
            addresses = [line.removeprefix(b"&")]
        for address in addresses:
            account, has_domain, domain = address.rpartition(b"@")
            yield at, Recipient(account, domain) if has_domain else Recipient(domain, None)


def missing_targets(context: LintContext) -> Iterator[Finding]:
    """Aliases that point to local addresses that do not exist."""
    for home, visited in sorted(context.visited.items()):
        for name, file in sorted(visited.files.items()):
            for at, recipient in forwards(file.content or b""):
                answer = context.answer(recipient)
                if answer is not None and answer.verdict is Verdict.REJECTED:
                    yield Finding(
                        "forward-to-nobody",
                        b"%s/%s" % (home, name),
                        at,
                        f"forwards to {text(recipient.address)}, which is rejected: {answer.reason}",
                        "the forwarded message bounces",
                        f"correct the line; cvmctl trace {text(recipient.address)} explains it",
                    )


def loops(context: LintContext) -> Iterator[Finding]:
    """Files that forward to themselves, perhaps through others."""
    edges: dict[bytes, list[tuple[int, bytes, bytes]]] = {}
    for home, visited in sorted(context.visited.items()):
        for name, file in sorted(visited.files.items()):
            path = b"%s/%s" % (home, name)
            for at, recipient in forwards(file.content or b""):
                answer = context.answer(recipient)
                if answer is not None and answer.verdict is Verdict.ACCEPTED:
                    edges.setdefault(path, []).append((at, recipient.address, answer.where))
    reported: set[bytes] = set()
    for start in sorted(edges):
        way = [] if start in reported else _way_back(start, edges)
        if way:
            reported.update(path for path, _, _ in way)
            number, address = way[0][1:]
            others = "".join(f", through {text(path)} line {at}" for path, at, _ in way[1:])
            yield Finding(
                "catch-all-loop" if start.endswith(b"default") else "forward-loop",
                start,
                number,
                f"forwards to {text(address)}, which comes back to this file{others}",
                "the message bounces as soon as qmail sees its own Delivered-To",
                "let one of them deliver, or forward elsewhere",
            )


def _way_back(start: bytes, edges: dict[bytes, list[tuple[int, bytes, bytes]]]) -> list[tuple[bytes, int, bytes]]:
    """The files (with line and address) from `start` back to it, shortest first; none if there is no such way."""
    ways: list[tuple[bytes, list[tuple[bytes, int, bytes]]]] = [(start, [])]
    seen: set[bytes] = set()
    for path, way in ways:
        for at, address, target in edges.get(path, ()):
            here = [*way, (path, at, address)]
            if target == start:
                return here
            if target not in seen:
                seen.add(target)
                ways.append((target, here))
    return []


def postmaster(context: LintContext) -> Iterator[Finding]:
    """Whether postmaster exists, for which every host must accept mail."""
    for line in context.local_lines[:1]:
        answer = context.answer(Recipient(b"postmaster", line.value))
        if answer is not None and answer.verdict is Verdict.REJECTED:
            yield Finding(
                "no-postmaster",
                line.file,
                line.number,
                f"postmaster@{text(line.value)} does not exist",
                "every host must accept mail for it (RFC 5321, 4.5.1)",
                "make .qmail-postmaster in the home of alias",
            )
