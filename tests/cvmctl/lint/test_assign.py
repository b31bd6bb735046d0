"""Mistakes in users/assign and users/cdb are found where they are, and nothing else is."""

from __future__ import annotations

import os

import pytest
from hosts import Host, assign_records, cdb_bytes
from planting import ASSIGN, Mistake, assigned, is_found, users_assign

pytestmark = pytest.mark.root


def stale(host: Host) -> None:
    users_assign(host, *ASSIGN)
    os.utime(host.root / "users/cdb", (1, 1))


def missing_cdb(host: Host) -> None:
    users_assign(host, *ASSIGN)
    (host.root / "users/cdb").unlink()


def cut_cdb(host: Host) -> None:
    users_assign(host, *ASSIGN)
    path = host.root / "users/cdb"
    path.write_bytes(path.read_bytes()[:-9])


def scribbled_cdb(host: Host) -> None:
    """The records are whole, but no search finds them."""
    users_assign(host, *ASSIGN)
    path = host.root / "users/cdb"
    data = path.read_bytes()
    end = int.from_bytes(data[:4], "little")
    path.write_bytes(data[:end] + bytes(len(data) - end))


def without_breaks(host: Host) -> None:
    lines = [line.format(root=host.root) for line in ASSIGN]
    users_assign(host, *ASSIGN)
    (host.root / "users/cdb").write_bytes(cdb_bytes(assign_records(lines)[:-1]))


MISTAKES = [
    Mistake("no final dot", assigned(*ASSIGN, end=""), "assign-syntax", "users/assign", None),
    Mistake("too few fields", assigned(*ASSIGN, "=x:joe:1", newu=ASSIGN), "assign-syntax", "users/assign", 3),
    Mistake("twice", assigned(*ASSIGN, ASSIGN[0]), "assign-duplicate", "users/assign", 3),
    Mistake(
        "a capital prefix",
        assigned(*ASSIGN, "+X:joe:5001:5001:{root}/home/joe:-::"),
        "assign-capital",
        "users/assign",
        3,
    ),
    Mistake("root", assigned(*ASSIGN, "=x:root:0:0:/root:::"), "assign-user", "users/assign", 3),
    Mistake("a relative home", assigned(*ASSIGN, "=x:joe:5001:5001:home/joe:::"), "assign-user", "users/assign", 3),
    Mistake("stale users/cdb", stale, "cdb-stale", "users/cdb", None),
    Mistake("no users/cdb", missing_cdb, "cdb-stale", "users/cdb", None),
    Mistake("another users/cdb", assigned(*ASSIGN, newu=ASSIGN[1:]), "cdb-different", "users/cdb", None),
    Mistake("a cut users/cdb", cut_cdb, "cdb-damaged", "users/cdb", None),
    Mistake("a scribbled users/cdb", scribbled_cdb, "cdb-damaged", "users/cdb", None),
    Mistake("no break list", without_breaks, "cdb-damaged", "users/cdb", None),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
def test_a_planted_mistake_is_found_and_nothing_else(sound: Host, mistake: Mistake) -> None:
    is_found(sound, mistake)
