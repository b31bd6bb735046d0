"""Whether cvmctl lists what the server accepts on a host with vpopmail, and explains as it decides."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from vhosts import recipient

from cvm_qmail.answer import Recipient, Unavailable, Verdict
from cvm_qmail.lookups import Lookup, Module, qmail
from cvm_qmail.settings import Settings
from cvm_qmail.tables import Tables
from cvm_qmail.tool import explain
from cvm_qmail.tool.survey import Entry, survey
from cvm_qmail.tool.trace import full
from cvm_vpopmail.plugin import plugin

SAMPLE = 200
"""Entries of a list that are asked about."""


def unlisted(
    system: Mapping[str, Any], settings: Settings, secrets: Collection[str], traced: int = 1
) -> list[Recipient] | None:
    """The accepted addresses of a system that are not in the list; None: the list would be refused.

    Of its addresses every `traced`-th is explained.
    """
    lookup = with_plugin(Tables(settings), settings).lookup
    all_asked = [recipient(case) for case in system["cases"]]
    accepted = [asked for asked in all_asked if is_accepted(asked, lookup)]
    for asked in all_asked[::traced]:
        is_told_alike(asked, settings, lookup, secrets)
    found = survey(settings)
    for local, pattern, domain, wild in found.entries[:: 1 + len(found.entries) // SAMPLE]:
        assert lookup(Recipient(local + b"anything" * pattern, b"some" * wild + domain)).verdict is Verdict.ACCEPT
    if found.troubles or found.unlisted:
        return None
    return [asked for asked in accepted if not covers(found.entries, asked)]


def is_accepted(asked: Recipient, lookup: Lookup) -> bool:
    """Whether the server accepts."""
    try:
        return lookup(asked).verdict is Verdict.ACCEPT
    except Unavailable:
        return False


def is_told_alike(asked: Recipient, settings: Settings, lookup: Lookup, secrets: Collection[str]) -> None:
    """The trace says what the server says, without a secret."""
    report = full(explain.look_up(asked, settings, with_plugin), "cvm-qmail")
    try:
        answer = lookup(asked)
        expected = (answer.verdict.name.lower(), answer.reason)
    except Unavailable as trouble:
        expected = ("unavailable", trouble.reason)
    assert (report["verdict"], report["reason"]) == expected, asked
    told = json.dumps(report)
    assert not [secret for secret in secrets if secret in told]


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
