"""cvmctl list: every address that would be accepted, and every pattern of addresses.

Invariants: a list that lacks an existing address makes another server reject good mail, so nothing is written
when an address is a temporary failure, when the list is empty, or when an address cannot be expressed in the format,
unless an option says what to do with it.  Memory does not grow with the list: it is on disk until
it is written.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import click

from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.host.child import in_child
from cvm_qmail.cvmctl.listing.cdb_writer import TooLarge
from cvm_qmail.cvmctl.listing.entries import Entry
from cvm_qmail.cvmctl.listing.formats import FORMATS, notation, printable, replace, write_regexp
from cvm_qmail.cvmctl.listing.samples import SHOWN, Samples
from cvm_qmail.cvmctl.listing.store import Store
from cvm_qmail.cvmctl.listing.survey import Found, survey
from cvm_qmail.cvmctl.ui.output import TEMPORARY, Failure, text, warn


@click.command("list")
@click.argument("domain", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    default="text",
    show_default=True,
    help="The form of the list: text for people, the others for mail servers.",
)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write this file; it is replaced as a whole.")
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
    help="What to do with an address that is a temporary failure.",
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
    domain, joe@*.example for every domain that ends in .example.  Only lower case is listed, dots as dots.
    Addresses without a local part or a domain, and those that percenthack rewrites, are not listed.

    Nothing is written, and the exit status is 111, if anything cannot be determined (--unknown) or cannot be
    expressed in the format (--omit-inexpressible), or if the list is empty (--allow-empty).

    \b
      cvmctl list example.org
      cvmctl list --format cdb -o /var/qmail/control/validrcptto.cdb
    """  # noqa: D301  click knows the control character, not the backslash
    if patterns is not None and form != "postfix":
        raise click.UsageError("--patterns goes with --format postfix")
    settings = files.settings()
    if settings.assume_local or settings.missing_domain is not None:
        what = "with CVM_QMAIL_ASSUME_LOCAL or CVM_QMAIL_MISSINGDOMAIN every domain is judged, and none can be listed"
        raise Failure(what, TEMPORARY)
    files.warn_of_rights()
    name = None if domain is None else os.fsencode(domain).lower()
    try:
        with tempfile.TemporaryDirectory(prefix="cvmctl-list-", ignore_cleanup_errors=True) as directory:
            found = in_child(settings, lambda hang_guard: survey(settings, directory, name, hang_guard))
            _report(found, unknown)
            store = Store(found.path)
            store.settle(include_unknown=unknown == "include")
            split = _Split(form, with_patterns=patterns is not None)
            split.check(store.entries(), omit_inexpressible=omit_inexpressible)
            if not split.count and not allow_empty:
                whose = "" if domain is None else f" (is {domain} in locals or virtualdomains?)"
                raise Failure(f"the list is empty{whose}: nothing is written (--allow-empty)", TEMPORARY)
            if patterns is not None:
                replace(patterns, lambda out: write_regexp(split.patterns(store.entries()), out))
            _write(output, lambda out: FORMATS[form].write(split.held(store.entries()), out))
    except sqlite3.Error as error:
        raise Failure(f"{tempfile.gettempdir()}: {error}", TEMPORARY) from None
    except TooLarge:
        raise Failure("the list is too large for a cdb file: nothing is written", TEMPORARY) from None


def _write(output: str | None, write: Callable[[BinaryIO], None]) -> None:
    """Writes to the file, or to standard output through a temporary file: a cdb needs to seek."""
    if output is not None:
        replace(output, write)
        return
    with tempfile.TemporaryFile() as whole:
        write(whole)
        whole.seek(0)
        shutil.copyfileobj(whole, sys.stdout.buffer)
        sys.stdout.flush()


def _report(found: Found, unknown: str) -> None:
    """Warns of what is unknown.  Raises `Failure` unless the administrator has said what to do with it."""
    failures = [(error.where, error) for error in found.failures.first]
    failures += [(notation(entry), error) for entry, error in found.unknown.first]
    for name, error in failures[:SHOWN]:
        warn(f"{text(name)}: temporary failure: {error.reason} {text(error.where)} {error.detail}")
    others = found.failures.count + found.unknown.count - SHOWN
    if others > 0:
        warn(f"and {others} more")
    for entry, answer in found.unlisted.first:
        what = "a plug-in judges each address, and cannot list them"
        warn(f"{text(notation(entry))}: {what} ({answer.reason})")
    if (failures or found.unlisted.count) and unknown == "fail":
        raise Failure("nothing is written (--unknown include, or omit)", TEMPORARY)


class _Split:
    """The entries of the list, and those of the file for patterns."""

    def __init__(self, form: str, *, with_patterns: bool) -> None:
        self._form = form
        self._holds = FORMATS[form].holds
        self._with_patterns = with_patterns
        self.count = 0

    def check(self, entries: Iterable[Entry], *, omit_inexpressible: bool) -> None:
        """Counts them.  Raises `Failure` for an entry that neither file can express, unless it is to be left out."""
        beyond: Samples[Entry] = Samples()
        for entry in entries:
            self.count += 1
            if not self._holds(entry) and not (self._with_patterns and printable(entry)):
                beyond.add(entry)
        if beyond.count and not omit_inexpressible:
            how = " (--patterns FILE)" if self._form == "postfix" and not self._with_patterns else ""
            more = f" and {beyond.count - 1} more" if beyond.count > 1 else ""
            raise Failure(
                f"the format {self._form} cannot express {text(notation(beyond.first[0]))}{more}{how}:"
                " nothing is written (--omit-inexpressible)",
                TEMPORARY,
            )

    def held(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """The entries of the list."""
        return filter(self._holds, entries)

    def patterns(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """The entries of the file for patterns."""
        return (entry for entry in entries if not self._holds(entry) and printable(entry))
