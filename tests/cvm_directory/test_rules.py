"""Which rows are asked for, and which of them decides."""

from __future__ import annotations

import pytest

from cvm_directory import rules
from cvm_directory.rules import Found, Row, domain_names, find, hacked, local_names


def row(domain: str, local: str | None, verdict: str = "+", scope: str = "all", endings: str = "-") -> Row:
    return Row(domain, scope, False, frozenset(endings), 0, "mail", local, verdict)


def test_domains_are_asked_for_as_qmail_send_looks_into_virtualdomains() -> None:
    assert domain_names(b"A.b.Example") == ["a.b.example", "*.b.example", "*.example", "*"]
    assert domain_names(b".x") == [".x", "*.x", "*"]
    assert domain_names(b"a..x") == ["a..x", "*..x", "*.x", "*"]
    assert domain_names(b"") == ["", "*"]


def test_local_parts_are_asked_for_with_all_that_they_begin_with() -> None:
    assert local_names(b"Joe-List-x") == ["joe-list-x", "joe-list-*", "joe-*", "*"]
    assert local_names(b"joe-") == ["joe-", "joe-*", "*"]
    assert local_names(b"joe") == ["joe", "*"]
    assert local_names(b"") == ["", "*"]


def test_beginnings_end_as_the_domain_says() -> None:
    assert local_names(b"joe+a-b", {"+"}) == ["joe+a-b", "joe+*", "*"]
    assert local_names(b"joe", {"o"}) == ["joe", "jo*", "*"]
    assert local_names(b"j\xe9-x", {r"\xe9"}) == [r"j\xe9-x", r"j\xe9*", "*"]


def test_slashes_in_a_row_are_one_as_in_a_path() -> None:
    assert local_names(b"joe-a//b-c") == ["joe-a//b-c", "joe-a/b-c", "joe-a//b-*", "joe-a/b-*", "joe-*", "*"]


@pytest.mark.parametrize(
    ("local", "verdict", "pattern"),
    [
        (b"joe", rules.ACCEPTED, False),
        (b"joe-list-x", rules.ACCEPTED, True),
        (b"joe-x", rules.REJECTED, True),
        (b"joe-gone", rules.REJECTED, False),
        (b"nobody", rules.REJECTED, False),
    ],
)
def test_the_longest_name_decides(local: bytes, verdict: str, pattern: bool) -> None:
    rows = [
        row("a.example", "joe"),
        row("a.example", "joe-list-*"),
        row("a.example", "joe-*", "-"),
        row("a.example", "joe-gone", "-"),
    ]
    found = find(rows, domain_names(b"a.example"), local_names(local))
    assert found is not None
    assert found[1:] == (verdict, pattern)


def test_a_domain_of_its_own_comes_before_one_that_stands_for_many() -> None:
    rows = [row("a.w.example", None, ""), row("*.w.example", "*")]
    assert find(rows, domain_names(b"a.w.example"), local_names(b"joe")) == Found(rows[0], "-", False)
    assert find(rows[1:], domain_names(b"b.w.example"), local_names(b"joe")) == Found(rows[1], "+", True)


def test_an_exception_is_out_of_scope() -> None:
    rows = [row("not.w.example", None, "", scope="none"), row("*.w.example", "*")]
    assert find(rows, domain_names(b"not.w.example"), local_names(b"joe")) == Found(rows[0], "=", False)


def test_a_domain_of_which_only_some_addresses_are_listed_leaves_the_others_to_the_next() -> None:
    rows = [row("a.w.example", "joe", scope="listed"), row("*.w.example", None, "")]
    assert find(rows, domain_names(b"a.w.example"), local_names(b"joe")) == Found(rows[0], "+", False)
    assert find(rows, domain_names(b"a.w.example"), local_names(b"ann")) == Found(rows[1], "-", False)
    assert find(rows[:1], domain_names(b"a.w.example"), local_names(b"ann")) is None


def test_percenthack_rewrites_addresses_of_its_own_domain() -> None:
    rows = [row("a.example", None)._replace(percenthack=True), row("b.example", "joe")]
    assert hacked(rows, "a.example")
    assert not hacked(rows, "b.example")
    assert not hacked(rows, "c.example")


def test_a_domain_that_is_not_there_is_not_ours() -> None:
    assert find([], domain_names(b"a.example"), local_names(b"joe")) is None
