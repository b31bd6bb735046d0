"""One lookup with everything that it asked.

Invariants: the verdict is that of the server's own service and lookups, over tables that record each question and its
answer; nothing here decides.  The controlling user comes from the module's own resolver (`QmailLookup.resolve`); if
it is not the user of the answer, because something changed in between, no user is named.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from cvm_qmail.answer import Outcome, Recipient, Unavailable
from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.host.files import Line
from cvm_qmail.cvmctl.host.verdicts import or_none
from cvm_qmail.pipeline import make_service
from cvm_qmail.plugin import ModuleFactory, Resolver
from cvm_qmail.protocols.cvm import packets
from cvm_qmail.protocols.cvm.responder import response_to
from cvm_qmail.rules import domains, users
from cvm_qmail.service.events import Query
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables

Target = domains.Local | domains.Remote
"""Where qmail-send routes an address."""


class Note(NamedTuple):
    """A question that the lookup asked, and its answer."""

    table: str
    key: Any
    value: Any


class Case(NamedTuple):
    """Everything that is known about an address when its lookup has ended."""

    recipient: Recipient
    settings: Settings
    tables: Tables
    """For further questions, which are not recorded."""
    notes: list[Note]
    outcome: Outcome
    response: packets.Response
    """The response of a server in lookup mode."""
    route: Target | None
    user: users.User | None
    followed: list[Note]
    """The questions about the addresses that the mail is only forwarded to (CVM_QMAIL_FOLLOW)."""


def look_up(recipient: Recipient, settings: Settings, factory: ModuleFactory) -> Case:
    """Runs the lookup through the server's own service, and records its questions."""
    notes: list[Note] = []
    watched = files.open_tables(settings, note=lambda table, key, value: notes.append(Note(table, key, value)))
    module = factory(watched, settings)
    notes.clear()  # what a plug-in reads when it is made is not part of the lookup
    looks_up = settings._replace(lookup_secret=b"", dry_run=False)
    watched.request()
    outcome, packet = response_to(make_service(watched, module, looks_up)(Query(recipient)))
    response = packets.parse_response(packet)
    tables = files.open_tables(settings)
    route, user = _controller(factory(tables, settings).resolver, recipient)
    if user is not None and outcome.user not in (b"", user.name):
        user = None  # something changed in between: better no user than a wrong one
    own = next((at for at, note in enumerate(notes) if note.table == "forwards"), len(notes))
    followed = [note for note in notes[own:] if note.table in ("forwards", "follow")]
    return Case(recipient, settings, tables, notes[:own], outcome, response, route, user, followed)


def _controller(resolver: Resolver | None, recipient: Recipient) -> tuple[Target | None, users.User | None]:
    """Where the address goes, and who controls it, as far as that can be found out."""
    if resolver is None:
        return None, None
    try:
        resolved = resolver.resolve(recipient)
    except Unavailable:
        route = or_none(lambda: resolver.route(recipient))
        return None if route is None else route.target, None
    return None if resolved.route is None else resolved.route.target, resolved.user


def asked(notes: list[Note], table: str) -> bool:
    """Whether the lookup asked this table anything."""
    return any(note.table == table for note in notes)


def control_line(case: Case, table: str, key: bytes, value: object) -> Line | None:
    """The line that gave `key` this value: the first, in virtualdomains the last."""
    if table == "virtualdomains":
        entries = or_none(lambda: files.virtual_entries(case.tables, case.settings)) or []
        return next((line for line, name, prepend in entries if (name, prepend) == (key, value)), None)
    if table == "locals":
        lines = or_none(lambda: files.local_lines(case.tables, case.settings))
    else:
        lines = or_none(lambda: files.control_lines(case.tables, case.settings, table))
    return next((line for line in lines or [] if line.value.lower() == key), None)
