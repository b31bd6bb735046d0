"""The golden corpus of vpopmail through the rules with plain dicts: no file is opened, nobody's rights are taken.

Nothing is left out.  Of a vpasswd.cdb that is damaged, or is a directory, no dict can be made: for the
addresses of such a domain the table of accounts raises `Unavailable`, as the real table says
of these very files (test_cdb.py).  How many these are is counted here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hosts import load, systems
from vhosts import recipient, welcome
from vmemory import from_corpus

from cvm_qmail.answer import Unavailable, Verdict
from cvm_qmail.plugin import Lookup

SYSTEMS = [path for path in systems("vpopmail") if load(path)["build"]["backend"] == "cdb"]

OUTCOMES = {Verdict.ACCEPTED: "deliver", Verdict.REJECTED: "bounce", Verdict.OUT_OF_SCOPE: "remote"}
FAILED = "cdb-damaged"


def said(lookup: Lookup, case: Mapping[str, Any]) -> tuple[str, str]:
    """The outcome, in the words of the corpus, and its reason."""
    try:
        answer = lookup(recipient(case))
    except Unavailable as error:
        return "defer", error.reason
    return OUTCOMES[answer.verdict], answer.reason


def answers(path: Path) -> Iterator[tuple[Mapping[str, Any], str, str]]:
    system = load(path)
    lookup = from_corpus(system).lookup()
    for case in system["cases"]:
        yield case, *said(lookup, case)


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
def test_every_delivery_is_vpopmails_without_a_file(path: Path) -> None:
    odd = [
        f"{case['local']}@{case['domain']}: {got} ({reason}), expected {case['expect']} {case.get('details')}"
        for case, got, reason in answers(path)
        if not welcome(path.stem, case, got)
    ]
    assert odd == []


DAMAGED = ["cdbdir", "garbage", "trunc", "trunc2", "zero", "zerodel"]
UNTOLD = 24
"""Deliveries to domains with a damaged database, of all 1,681."""


def test_only_of_damaged_files_nothing_can_be_determined() -> None:
    untold = [(path.stem, case["domain"]) for path in SYSTEMS for case, _, reason in answers(path) if reason == FAILED]
    assert set(untold) == {("damage", f"{name}.example") for name in DAMAGED}
    assert len(untold) == UNTOLD


def test_the_deliveries_are_all_there() -> None:
    assert sum(len(load(path)["cases"]) for path in SYSTEMS) == 1681
