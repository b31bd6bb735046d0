"""What sums up a domain changes with what is in it, however large it is; its rows are in the directory's order."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvm_directory.publishing import publication
from cvm_directory.publishing.publication import Address, Domain, Publication
from cvm_qmail.cvmctl.listing.entries import Entry
from cvm_qmail.cvmctl.listing.store import ACCEPTED, DOUBT, REJECTED, UNKNOWN, Store

Found = Mapping[tuple[bytes, bool], int]
FOUND = st.dictionaries(
    st.tuples(st.binary(max_size=4), st.booleans()), st.sampled_from([ACCEPTED, REJECTED, UNKNOWN, DOUBT]), max_size=12
)


@contextmanager
def published(found: Found, domain: bytes = b"a.example") -> Iterator[Publication]:
    """A survey that has found this in one domain, and something else in others."""
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "found")
        store = Store(path)
        for name in (b"a", domain, b"z"):
            store.add_place(name, wild=False, scope="all", percenthack=False)
            store.add(Entry(b"other", False, name, True), ACCEPTED)
        store.add(Entry(b"other", False, b"a", False), ACCEPTED)
        for (local, pattern), kind in found.items():
            store.add(Entry(local, pattern, domain, False), kind)
        store.close()
        made = Publication(path)
        try:
            yield made
        finally:
            made.close()


def summed_up(found: Found) -> Domain:
    with published(found) as made:
        (domain,) = [domain for domain in made.domains() if domain.name == "a.example"]
    return domain


@given(FOUND, FOUND)
def test_what_is_not_the_same_is_not_summed_up_to_the_same(one: Found, other: Found) -> None:
    assert (summed_up(one).digest == summed_up(other).digest) == (one == other)


@given(FOUND)
def test_numbers(found: Found) -> None:
    domain = summed_up(found)
    assert domain.addresses == len(found)
    assert domain.unknown == sum(kind == UNKNOWN for kind in found.values())


@given(FOUND)
def test_rows_are_in_the_order_of_a_database(found: Found) -> None:
    with published(found) as made:
        made.take("a.example")
        rows = list(made.addresses())
    assert len(rows) == len(found)
    assert rows == sorted(rows)


def test_a_large_domain_is_summed_up_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same way wherever the parts end: a survey in which one differs has another sum."""
    found = {(b"%04d" % number, False): ACCEPTED for number in range(1000)}
    for size in (1, 7, 999, 1000, 1001):
        monkeypatch.setattr(publication, "_AT_ONCE", size)
        whole = summed_up(found)
        assert whole.addresses == 1000
        assert summed_up({**found, (b"0500", False): REJECTED}).digest != whole.digest
        assert summed_up({key: kind for key, kind in found.items() if key[0] != b"0999"}).digest != whole.digest


def test_one_domain_after_the_other() -> None:
    with published({(b"joe-", True): ACCEPTED, (b"ann+", True): ACCEPTED, (b"x" * 50, False): REJECTED}) as made:
        made.take("a.example")
        assert list(made.addresses()) == [Address("ann+*", "+"), Address("joe-*", "+"), Address("x" * 50, "-")]
        assert (made.endings(), made.longest()) == ("+-", "x" * 50)
        made.take("a")
        assert list(made.addresses()) == [Address("other", "+")]
        assert (made.endings(), made.longest()) == ("", "other")
        assert made.has("z")
        assert not made.has("b")
