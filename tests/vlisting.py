"""Whether cvmctl lists what the server accepts on a host with vpopmail, and explains as it decides."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from surveying import surveyed
from vhosts import recipient

from cvm_qmail.answer import Recipient, Unavailable, Verdict
from cvm_qmail.cvmctl.listing.entries import Entry
from cvm_qmail.cvmctl.trace import capture
from cvm_qmail.cvmctl.trace.command import full
from cvm_qmail.pipeline import make_lookup
from cvm_qmail.plugin import Lookup, Module
from cvm_qmail.qmail import qmail
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables
from cvm_vpopmail.program import plugin

SAMPLE = 200
"""Entries of a list that are asked about."""


def unlisted(
    system: Mapping[str, Any], settings: Settings, secrets: Collection[str], traced: int = 1
) -> list[Recipient] | None:
    """The accepted addresses of a system that are not in the list; None: the list would be refused.

    Of its addresses every `traced`-th is explained.
    """
    tables = Tables(settings)
    lookup = make_lookup(tables, with_plugin(tables, settings))
    all_asked = [recipient(case) for case in system["cases"]]
    accepted = [asked for asked in all_asked if is_accepted(asked, lookup)]
    for asked in all_asked[::traced]:
        is_explained_alike(asked, settings, lookup, secrets)
    found = surveyed(settings)
    for local, pattern, domain, wild in found.entries[:: 1 + len(found.entries) // SAMPLE]:
        assert lookup(Recipient(local + b"anything" * pattern, b"some" * wild + domain)).verdict is Verdict.ACCEPTED
    if found.failures.count or found.unlisted.count:
        return None
    return [asked for asked in accepted if not covers(found.entries, asked)]


def is_accepted(asked: Recipient, lookup: Lookup) -> bool:
    """Whether the server accepts."""
    try:
        return lookup(asked).verdict is Verdict.ACCEPTED
    except Unavailable:
        return False


def is_explained_alike(asked: Recipient, settings: Settings, lookup: Lookup, secrets: Collection[str]) -> None:
    """The trace says what the server says, without a secret."""
    report = full(capture.look_up(asked, settings, with_plugin), "cvm-qmail")
    try:
        answer = lookup(asked)
        expected = (answer.verdict.word, answer.reason)
    except Unavailable as error:
        expected = ("temporary failure", error.reason)
    assert (report["verdict"], report["reason"]) == expected, asked
    said = json.dumps(report)
    assert not [secret for secret in secrets if secret in said]


def with_plugin(tables: Tables, settings: Settings) -> Module:
    """cvm-qmail with the plug-in, without looking for it among all that is installed."""
    return qmail(tables, settings, [plugin(tables, settings)])


def covers(entries: list[Entry], asked: Recipient) -> bool:
    """Whether an address is in the list, or of a kind that is never listed."""
    account, domain = asked.account.lower().replace(b":", b"."), (asked.domain or b"").lower()
    if not account or not domain or (b"%" in account and b"hack." in domain):
        return True
    return any(
        domain == place and (account.startswith(local) if pattern else account == local)
        for local, pattern, place, _ in entries
    )
