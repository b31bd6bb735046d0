"""cvmctl publish: write what this host would accept into the directory that MX hosts answer from."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from contextlib import closing

import click

from cvm_directory.notation import of_domain
from cvm_directory.publishing import single
from cvm_directory.publishing.database import DirectoryDatabase, connected
from cvm_directory.publishing.publication import Publication
from cvm_directory.publishing.publisher import Counts, Policy, Publisher, Refused
from cvm_directory.publishing.schema import schema
from cvm_directory.settings import DirectorySettings
from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.host.child import in_child
from cvm_qmail.cvmctl.listing import exact
from cvm_qmail.cvmctl.listing.formats import notation
from cvm_qmail.cvmctl.ui.output import PERMANENT, TEMPORARY, Failure, line, text, warn
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables

_SHOWN = 20
"""Refused domains that are named."""


@click.command("publish")
@click.argument("names", metavar="[DOMAIN|ADDRESS]...", nargs=-1)
@click.option("--create", is_flag=True, help="Make the tables first, if they are not there.")
@click.option("--schema", "show_schema", is_flag=True, help="Print the statements that make the tables, and end.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@click.option(
    "--force",
    is_flag=True,
    help="Publish domains that have lost more than half of their addresses, or all, or that another host published.",
)
@click.option(
    "--unknown",
    type=click.Choice(["fail", "include"]),
    default="fail",
    show_default=True,
    help="A domain with an address that is a temporary failure: stays as it is, or is published with it.",
)
def publish(
    names: tuple[str, ...], *, create: bool, show_schema: bool, dry_run: bool, force: bool, unknown: str
) -> None:
    """Write what this host accepts into the directory of CVM_DIRECTORY_DATABASE, for `cvm-directory` on MX hosts.

    All domains of the control files, or each DOMAIN, or what is said of each ADDRESS alone.  Each domain is
    written in one transaction, and only what has changed.

    The exit status is 100 if a domain was refused that needs --force, or that this host does not have, and 111
    if a domain has a temporary failure, or the database cannot be asked.  A domain that is refused stays as it
    is, and does not keep others from being published.

    \b
      cvmctl publish --create
      cvmctl publish example.org
      cvmctl publish joe@example.org
    """  # noqa: D301  click knows the control character, not the backslash
    settings = files.settings()
    own = DirectorySettings.from_settings(settings)
    if show_schema:
        for statement in schema(own.options.dialect.name):
            click.echo(statement)
        return
    if settings.assume_local or settings.missing_domain is not None:
        what = "with CVM_QMAIL_ASSUME_LOCAL or CVM_QMAIL_MISSINGDOMAIN every domain is judged, and none can be listed"
        raise Failure(what, TEMPORARY)
    files.warn_of_rights()
    tables = files.open_tables(settings)
    policy = Policy(_host(tables, settings, own), force, unknown == "include", dry_run)
    database = connected(tables, own)
    try:
        if create and not dry_run:
            database.create(schema(own.options.dialect.name))
        given = [os.fsencode(name) for name in names]
        refused = _addresses(settings, database, policy, [name for name in given if b"@" in name])
        domains = [name.lower().removeprefix(b"*") for name in given if b"@" not in name]
        if domains or not given:
            refused += _domains(settings, database, policy, domains)
    finally:
        database.close()
    _end(refused)


def _host(tables: Tables, settings: Settings, own: DirectorySettings) -> str:
    """The name under which this host publishes."""
    if own.host:
        return text(own.host)
    me = files.control_line(tables, settings, "me")
    if me is None or not me.value:
        raise Failure("control/me names no host: set CVM_DIRECTORY_HOST", PERMANENT)
    return text(me.value)


def _addresses(
    settings: Settings, database: DirectoryDatabase, policy: Policy, addresses: list[bytes]
) -> list[Refused]:
    refused = []
    for address in addresses:
        local, _, domain = address.rpartition(b"@")
        done = single.publish(database, policy, local, domain, _verdict(settings, local, domain))
        if isinstance(done, Refused):
            refused.append(done)
        else:
            line(f"{text(address)}: {done}")
    return refused


def _verdict(settings: Settings, local: bytes, domain: bytes) -> str:
    return in_child(settings, lambda guard: single.verdict(settings, local, domain, guard))


def _domains(settings: Settings, database: DirectoryDatabase, policy: Policy, domains: list[bytes]) -> list[Refused]:
    """Publishes these domains, or all."""
    refused: list[Refused] = []
    with tempfile.TemporaryDirectory(prefix="cvmctl-publish-", ignore_cleanup_errors=True) as directory:
        try:
            began = time.monotonic()
            found = in_child(settings, lambda guard: exact.survey(settings, directory, domains, guard))
            _warn_of_unknown(found)
            listed = time.monotonic()
            publisher = Publisher(database, policy, refused.append)
            with closing(Publication(found.path)) as publication:
                publisher.publish(publication)
                names = [of_domain(name, wild=name[:1] in (b"", b".")) for name in domains]
                publisher.remove_others(publication.has, names)
            publisher.end()
        except sqlite3.Error as error:
            raise Failure(f"{tempfile.gettempdir()}: {error}", TEMPORARY) from None
    _report(publisher.counts, found, policy, listed - began, time.monotonic() - listed)
    return refused


def _warn_of_unknown(found: exact.Found) -> None:
    for entry, error in found.unknown.first:
        warn(f"{text(notation(entry))}: temporary failure: {error.reason} {text(error.where)} {error.detail}")
    if found.unknown.others:
        warn(f"and {found.unknown.others} more temporary failures")


def _report(counts: Counts, found: exact.Found, policy: Policy, listing: float, publishing: float) -> None:
    would = "would be " if policy.dry_run else ""
    line(
        f"{counts.domains} domains {would}published, {counts.same} unchanged, {counts.gone} {would}removed;"
        f" {counts.added} addresses {would}added, {counts.removed} {would}removed"
    )
    if found.full:
        line(f"{found.full} mailboxes that are full count as accepted")
    line(f"looked at the host for {listing:.1f} seconds, published for {publishing:.1f}")


def _end(refused: list[Refused]) -> None:
    for domain, _, why in refused[:_SHOWN]:
        warn(f"{domain}: not published, and stays as it is: {why}")
    if len(refused) > _SHOWN:
        warn(f"and {len(refused) - _SHOWN} more domains")
    if refused:
        temporary = any(one.why.temporary for one in refused)
        raise Failure("not everything is published", TEMPORARY if temporary else PERMANENT)
