"""What a host would accept: of every system of the corpus, exactly what qmail delivers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from hosts import as_bytes, load, materialise, systems, temporary_directory
from surveying import surveyed

from cvm_qmail.answer import Recipient, Unavailable, Verdict
from cvm_qmail.cvmctl.listing.entries import Entry
from cvm_qmail.pipeline import make_lookup
from cvm_qmail.qmail import qmail
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables

pytestmark = pytest.mark.root

SYSTEMS = systems("qmail")
UNREADABLE = re.compile(
    "cdb-(garbage|is-directory|symlink-loop|truncated-.*|zero-length|zeros)|control-.*-(directory|loop|missing)"
)
"""Systems in which something cannot be read that a list needs."""


def covers(entries: Iterable[Entry], account: bytes, domain: bytes) -> bool:
    """Whether the address is in the list; dots and colons, and slashes in a row, name the same file."""
    account, domain = _alike(account.lower()), domain.lower()
    for entry in entries:
        local, pattern, place, wild = entry._replace(local=_alike(entry.local))
        here = domain.endswith(place) if wild else domain == place
        if here and (account.startswith(local) if pattern else account == local):
            return True
    return False


def _alike(account: bytes) -> bytes:
    return re.sub(b"/+", b"/", account.replace(b":", b"."))


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
def test_what_qmail_delivers_is_listed_and_what_is_listed_is_accepted(path: Path) -> None:
    system = load(path)
    with temporary_directory() as root:
        settings = Settings.from_environment(
            {**materialise(system, root).environment, "CVM_QMAIL_PROGRAMS": "vpopmail"}
        )
        if UNREADABLE.fullmatch(path.stem):
            with pytest.raises(Unavailable):
                surveyed(settings)
            return
        found = surveyed(settings)
        tables = Tables(settings)
        lookup = make_lookup(tables, qmail(tables, settings))
        for local, pattern, domain, wild in found.entries:
            answer = lookup(Recipient(local + b"anything" * pattern, b"some" * wild + domain))
            assert answer.verdict is Verdict.ACCEPTED
        hack = [name.lower() for name in as_bytes(system["control"].get("percenthack", "")).split()]
        for case in system["cases"]:
            account, domain = as_bytes(case["local"]), as_bytes(case["domain"] or "")
            hacked = b"%" in account and domain.lower() in hack
            if case["domain"] is not None and account and not hacked and case["expect"] == "deliver":
                assert covers(found.entries, account, domain), case
