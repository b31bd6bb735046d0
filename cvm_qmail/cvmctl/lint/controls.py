"""Mistakes in control files.

Source: qmail-control(5), qmail-send(8), qmail-smtpd(8).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from cvm_qmail.answer import Recipient, Unavailable, Verdict
from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.host.advice import HUP
from cvm_qmail.cvmctl.host.files import Line
from cvm_qmail.cvmctl.host.findings import Finding
from cvm_qmail.cvmctl.host.verdicts import PROBE, or_none
from cvm_qmail.cvmctl.lint.context import LintContext
from cvm_qmail.cvmctl.ui.output import text
from cvm_qmail.tables.control import NAMES
from cvm_qmail.tables.door import Rights


def unreadable_controls(context: LintContext) -> Iterator[Finding]:
    """Files with which qmail-send does not start."""
    for name in NAMES:
        try:
            files.control_line(context.tables, context.settings, name)
        except Unavailable as error:
            if context.blind(error) or not context.exact:
                raise
            yield Finding(
                "control-unreadable",
                error.where,
                None,
                f"cannot be read: {error.detail}",
                "qmail-send does not start, and delivers no mail",
                "make it a regular file that the user qmails can read",
            )
    me, locals_ = (
        context.or_none_reported(partial(context.tables.status, context.path(name)))
        for name in ("control/me", "control/locals")
    )
    if me is None and locals_ is None:
        yield Finding(
            "control-me-missing",
            context.path("control/me"),
            None,
            "missing, and so is locals",
            "qmail-send does not start, and delivers no mail",
            "write this host's name into it",
        )


def control_syntax(context: LintContext) -> Iterator[Finding]:
    """Lines that say something else than was meant."""
    for name in ("locals", "virtualdomains", "percenthack", "rcpthosts", "morercpthosts"):
        for line in context.lines(name):
            domain = line.value.partition(b":")[0] if name == "virtualdomains" else line.value
            what = _odd(name, line, domain)
            if what:
                yield Finding(
                    "control-syntax",
                    line.file,
                    line.number,
                    what,
                    f"{text(domain.strip() or line.value.strip())} is not found in it",
                    f"fix the line {HUP}",
                )


def _odd(name: str, line: Line, domain: bytes) -> str:
    """What is wrong with a line; empty: nothing."""
    if line.raw.rstrip(b" \t").endswith(b"\r"):
        return "ends in a carriage return, which becomes part of the entry"
    if 0 in line.raw:
        return "contains a NUL, which begins another entry"
    if domain[:1] in (b" ", b"\t"):
        return "begins with a blank, which becomes part of the name"
    if b" " in domain or b"\t" in domain:
        return "has a blank inside: a comment needs a line of its own"
    if name == "virtualdomains" and b":" not in line.value:
        return "has no colon, and is ignored"
    if domain.startswith(b"*"):
        return "begins with *, which is not a wildcard: wildcards begin with a dot"
    if name in ("locals", "percenthack") and domain.startswith(b"."):
        return "begins with a dot: there are no wildcards in this file"
    if name != "virtualdomains" and b"@" in domain:
        return "has an @: expected a domain"
    return ""


def duplicates(context: LintContext) -> Iterator[Finding]:
    """Entries of virtualdomains that a later one overrides."""
    counting = {name: (line, prepend) for line, name, prepend in context.virtual}
    for line in context.lines("virtualdomains"):
        name, colon, prepend = line.value.partition(b":")
        last = counting.get(name.lower())
        if colon and last is not None and last[0].number != line.number and prepend != last[1]:
            yield Finding(
                "virtualdomains-overridden",
                line.file,
                line.number,
                f"{text(name)} is also in line {last[0].number}, with another value",
                f"qmail uses line {last[0].number}, and not this one",
                f"remove one of them {HUP}",
            )


def both(context: LintContext) -> Iterator[Finding]:
    """Domains in locals and in virtualdomains."""
    local = {line.value.lower(): line for line in reversed(context.local_lines)}
    for line, name, _ in context.virtual:
        first = local.get(name.rpartition(b"@")[2])
        if first is not None:
            yield Finding(
                "local-and-virtual",
                line.file,
                line.number,
                f"{text(name)} is in {text(first.file)} line {first.number} as well",
                "locals comes first: this line is never used",
                f"remove one of them {HUP}",
            )


def nobody(context: LintContext) -> Iterator[Finding]:
    """Entries of virtualdomains whose user does not exist, or has no address for them."""
    for line, name, prepend in context.virtual:
        account, _, domain = name.rpartition(b"@")
        if not prepend or any(local.value.lower() == domain for local in context.local_lines):
            continue
        if b"@" in name:
            answer = context.answer(Recipient(account, domain))
            missing = answer is not None and answer.verdict is Verdict.REJECTED
        else:
            missing = context.or_none_reported(partial(_takes_any, context, prepend)) is False
        if missing:
            yield Finding(
                "virtualdomains-no-user",
                line.file,
                line.number,
                f"no user has an address that begins with {text(prepend)}-",
                f"all mail for {text(name) or 'any other domain'} bounces",
                f"make the user {text(prepend)}, or its .qmail files, or correct the line {HUP}",
            )


def _takes_any(context: LintContext, prepend: bytes) -> bool:
    """Whether whoever controls these addresses has a .qmail file for one of them, or takes all."""
    user = context.controller(prepend + b"-" + PROBE)
    if not user.dash or not user.home.startswith(b"/"):
        return True
    safe = user.ext[: -len(PROBE)].lower().replace(b".", b":")
    start = b".qmail" + user.dash
    for name in files.dotqmail_names(context.tables, user.home, Rights(user.uid, user.gid)):
        rest = name.removeprefix(start)
        stem = rest.removesuffix(b"default")
        if rest != name and (rest.startswith(safe) or (stem != rest and safe.startswith(stem))):
            return True
    longer = b"!" + prepend.lower() + b"-"
    return any(key.startswith(longer) and key.rstrip(b"\0") != longer for key, _ in context.records)


def rcpthosts(context: LintContext) -> Iterator[Finding]:
    """Domains that are taken from strangers but not delivered here."""
    path = context.path("control/rcpthosts")
    if context.tables.status(path) is None:
        yield Finding(
            "rcpthosts-missing",
            path,
            None,
            "missing",
            "qmail-smtpd accepts mail for every domain from everybody: an open relay",
            "list the domains for which this host accepts mail",
        )
    if or_none(context.tables.controls) is None:
        return  # which domains are delivered here is unknown
    local = {line.value.lower() for line in context.local_lines}
    hack = {line.value.lower() for line in context.lines("percenthack")}
    virtual = {name for _, name, _ in context.virtual}
    virtual |= {name.rpartition(b"@")[2] for name in virtual if b"@" in name}
    for line in (*context.lines("rcpthosts"), *context.lines("morercpthosts")):
        domain = line.value.lower()
        if not _known(domain, local | hack, virtual):
            yield Finding(
                "rcpthosts-not-ours",
                line.file,
                line.number,
                f"{text(domain)} is neither in locals nor in virtualdomains",
                "mail for it is accepted from everybody and relayed: its bounces go to innocent people",
                f"remove it; or add it to locals or virtualdomains {HUP}; if this host is meant to relay it,"
                f" add {text(domain)}: to virtualdomains",
            )
    yield from _stale_morercpthosts(context)


def _known(domain: bytes, local: set[bytes], virtual: set[bytes]) -> bool:
    """Whether a name of rcpthosts, perhaps a wildcard, is local or virtual."""
    if domain in local or domain in virtual or b"" in virtual:
        return True
    if domain.startswith(b".") and any(name.endswith(domain) for name in local | virtual):
        return True
    dots = [at for at, byte in enumerate(domain) if byte == 46]
    return any(domain[at:] in virtual for at in dots)


def _stale_morercpthosts(context: LintContext) -> Iterator[Finding]:
    source = context.tables.status(context.path("control/morercpthosts"))
    made = context.tables.status(context.path("control/morercpthosts.cdb"))
    if source is not None and (made is None or made.mtime < source.mtime):
        yield Finding(
            "morercpthosts-stale",
            context.path("control/morercpthosts.cdb"),
            None,
            "missing" if made is None else "older than morercpthosts",
            "qmail-smtpd does not know the new domains",
            "run qmail-newmrh",
        )
