"""Candidates and entries on disk."""

from __future__ import annotations

import os
from pathlib import Path

from cvm_qmail.cvmctl.listing.entries import Candidate, Entry, Place
from cvm_qmail.cvmctl.listing.store import ACCEPTED, UNKNOWN, Store


def test_candidates_of_a_place_are_those_below_what_it_prepends(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "list"))
    names = [b"joe", b"joe-", b"joe-b", b"joe-a", b"joe.a", b"joe:a", b"joe-.x", b"joez", b"ann-a"]
    store.add_candidates(Candidate(name, False) for name in [*names, *names])
    assert [local for local, _ in store.at(Place(b"v.example", b"Joe"))] == [b"", b".x", b"a", b"b"]
    assert {local for local, _ in store.at(Place(b"example.org", None))} == set(names)


def test_a_pattern_above_what_is_prepended_stands_for_the_whole_place(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "list"))
    store.add_candidates([Candidate(b"jo", True), Candidate(b"joe-a", False)])
    assert list(store.at(Place(b"v.example", b"joe"))) == [Candidate(b"", True), Candidate(b"a", False)]


def test_what_is_unknown_is_listed_only_if_it_is_to_be(tmp_path: Path) -> None:
    for name, include, expected in [("a", False, [b"joe"]), ("b", True, [b"ann", b"joe"])]:
        store = Store(str(tmp_path / name))
        store.add(Entry(b"joe", False, b"example.org", False), ACCEPTED)
        store.add(Entry(b"ann", False, b"example.org", False), UNKNOWN)
        store.settle(include_unknown=include)
        assert [entry.local for entry in store.entries()] == expected


def test_of_a_pattern_and_its_notation_the_pattern_stays(tmp_path: Path) -> None:
    path = str(tmp_path / "list")
    store = Store(path)
    pattern = Entry(b"joe-", True, b"example.org", False)
    other = Entry(b"ann-default", False, b"example.org", False)
    for entry in (pattern, Entry(b"joe-default", False, b"example.org", False), other):
        store.add(entry, ACCEPTED)
    store.settle(include_unknown=False)
    store.close()
    assert list(Store(path).entries()) == [other, pattern]


def test_a_new_file_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    stores = [Store.made_in(str(tmp_path)) for _ in range(2)]
    assert stores[0].path != stores[1].path
    for store in stores:
        store.close()
    assert len(os.listdir("/proc/self/fd")) == before
