"""What a host would accept: of every system of the corpus, exactly what qmail delivers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from hosts import Host, a_folder, as_bytes, load, materialise, systems

from cvm_qmail.answer import Recipient, Unavailable, Verdict
from cvm_qmail.lookups import qmail
from cvm_qmail.settings import Settings
from cvm_qmail.tables import Tables
from cvm_qmail.tool.survey import Entry, of_domain, places, survey

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
    with a_folder() as root:
        settings = Settings.from_environment(materialise(system, root).environment)
        if UNREADABLE.fullmatch(path.stem):
            with pytest.raises(Unavailable):
                survey(settings)
            return
        found = survey(settings)
        tables = Tables(settings)
        lookup = qmail(tables, settings).lookup
        for local, pattern, domain, wild in found.entries:
            answer = lookup(Recipient(local + b"anything" * pattern, b"some" * wild + domain))
            assert answer.verdict is Verdict.ACCEPT
        hack = [name.lower() for name in as_bytes(system["control"].get("percenthack", "")).split()]
        for case in system["cases"]:
            account, domain = as_bytes(case["local"]), as_bytes(case["domain"] or "")
            hacked = b"%" in account and domain.lower() in hack
            if case["domain"] is not None and account and not hacked and case["expect"] == "deliver":
                assert covers(found.entries, account, domain), case


def test_the_place_of_a_domain(host: Host) -> None:
    host.control("virtualdomains", "v.example:joe\n.example:ann\n:alias\nexample.org:joe\nnot.example:\n")
    settings = Settings.from_environment(host.environment)
    tables = Tables(settings)
    found, _ = places(tables, settings)
    prepends = {name: of_domain(found, name) for name in (b"example.org", b"v.example", b"x.y.example", b"other")}
    assert [place.prepend for name in prepends for place in prepends[name]] == [None, b"joe", b"ann", b"alias"]
    assert of_domain(found[:1], b"other") == []
