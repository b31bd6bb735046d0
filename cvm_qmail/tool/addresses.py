"""cvmctl list: every address that would be accepted, and every pattern of addresses.

Law: a list without an address that exists makes another server refuse good mail, so nothing is written
when anything could not be told, when the list is empty, or when an address cannot be expressed in the
form, unless the administrator says what to do with it.
"""

from __future__ import annotations

import os
import sys

import click

from cvm_qmail.tool import host
from cvm_qmail.tool.apart import apart
from cvm_qmail.tool.exports import FORMATS, as_regexp, notation, printable, write
from cvm_qmail.tool.show import TEMPORARY, Failure, text, warn
from cvm_qmail.tool.survey import Entry, Found, survey

SAID = 5
"""Troubles that are named; the others are counted."""


@click.command("list")
@click.argument("domain", required=False)
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text", show_default=True)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), help="Write this file; it appears whole or not at all."
)
@click.option(
    "--patterns",
    type=click.Path(dir_okay=False),
    help="With --format postfix: write what an indexed table cannot hold to this file, a regexp_table(5).",
)
@click.option(
    "--unknown",
    type=click.Choice(["fail", "include", "omit"]),
    default="fail",
    show_default=True,
    help="What to do with an address that cannot be told now.",
)
@click.option("--omit-inexpressible", is_flag=True, help="Leave out what the format cannot hold.")
@click.option("--allow-empty", is_flag=True, help="Write an empty list too.")
def addresses(
    *,
    domain: str | None,
    form: str,
    output: str | None,
    patterns: str | None,
    unknown: str,
    omit_inexpressible: bool,
    allow_empty: bool,
) -> None:
    """List every address that would be accepted, of all domains or of DOMAIN.

    joe-default@example.org stands for every address that begins with joe-, @example.org for a whole
    domain, joe@*.example for every domain that ends so.  Only lower case is listed, dots as dots.  Not
    listed: addresses without a local part or a domain, and those that percenthack rewrites.

    Nothing is written, and the exit status is 111, if anything cannot be told (--unknown), cannot be
    held by the format (--omit-inexpressible), or if the list is empty (--allow-empty).

    \b
      cvmctl list example.org
      cvmctl list --format cdb -o /var/qmail/control/validrcptto.cdb
    """  # noqa: D301  click knows the control character, not the backslash
    if patterns is not None and form != "postfix":
        raise click.UsageError("--patterns goes with --format postfix")
    settings = host.settings()
    if settings.assume_local or settings.missing_domain is not None:
        what = "with CVM_QMAIL_ASSUME_LOCAL or CVM_QMAIL_MISSINGDOMAIN every domain is answered for, and none is listed"
        raise Failure(what, TEMPORARY)
    host.warn_of_rights()
    name = None if domain is None else os.fsencode(domain).lower()
    found = apart(settings, lambda hazards: survey(settings, name, hazards))
    entries = _settled(found, unknown)
    files = _split(entries, form, patterns, omit_inexpressible=omit_inexpressible)
    if not entries and not allow_empty:
        whose = "" if domain is None else f" (is {domain} in locals or virtualdomains?)"
        raise Failure(f"the list is empty{whose}: nothing is written (--allow-empty)", TEMPORARY)
    if patterns is not None:
        write(patterns, as_regexp(files[1]))
    data = FORMATS[form].written(files[0])
    if output is None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    else:
        write(output, data)


def _settled(found: Found, unknown: str) -> list[Entry]:
    """The entries, with those that cannot be told as `unknown` says."""
    troubles = [(trouble.where, trouble) for trouble in found.troubles]
    troubles += [(notation(entry), trouble) for entry, trouble in found.unknown]
    for name, trouble in troubles[:SAID]:
        warn(f"{text(name)}: cannot be told: {trouble.reason} {text(trouble.where)} {trouble.detail}")
    if len(troubles) > SAID:
        warn(f"and {len(troubles) - SAID} more")
    for entry, answer in found.unlisted[:SAID]:
        what = "somebody else judges each address, and does not tell which there are"
        warn(f"{text(notation(entry))}: {what} ({answer.reason})")
    if (troubles or found.unlisted) and unknown == "fail":
        raise Failure("nothing is written (--unknown include, or omit)", TEMPORARY)
    included = [entry for entry, _ in found.unknown] if unknown == "include" else []
    entries = {*found.entries, *included}
    entries -= {Entry(e.local + b"default", False, *e[2:]) for e in entries if e.pattern}  # written alike
    return sorted(entries, key=lambda entry: (entry.domain, entry.wild, entry.local, entry.pattern))


def _split(
    entries: list[Entry], form: str, patterns: str | None, *, omit_inexpressible: bool
) -> tuple[list[Entry], list[Entry]]:
    """What goes into the list, and what into the file for patterns."""
    holds = FORMATS[form].holds
    held = [entry for entry in entries if holds(entry)]
    rest = [entry for entry in entries if not holds(entry)]
    if patterns is not None:
        rest, beyond = [entry for entry in rest if printable(entry)], [e for e in rest if not printable(e)]
    else:
        rest, beyond = [], rest
    if beyond and not omit_inexpressible:
        how = " (--patterns FILE)" if form == "postfix" and patterns is None else ""
        raise Failure(
            f"the format {form} cannot hold {text(notation(beyond[0]))}"
            f"{f' and {len(beyond) - 1} more' if beyond[1:] else ''}{how}:"
            " nothing is written (--omit-inexpressible)",
            TEMPORARY,
        )
    return held, rest
