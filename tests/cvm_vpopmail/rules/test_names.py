"""Names that vpopmail takes, and what it calls lower case."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvm_vpopmail.rules.names import lower, valid_domain, valid_user

CORPUS = Path(__file__).parents[2] / "corpus/vpopmail"

USER = b"!#$&'*+-./0123456789=?ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz{|}~"
DOMAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-"


@pytest.mark.parametrize("octet", range(256))
def test_each_character_is_judged_by_itself(octet: int) -> None:
    name = b"a%cb" % octet
    assert valid_user(name) == (octet in USER)
    assert valid_domain(name) == (octet in DOMAIN)


def test_one_wrong_character_is_enough() -> None:
    assert valid_user(b"o'brien+tag")
    assert not valid_user(b"o'brien\"tag")
    assert valid_domain(b"a-b.example")
    assert not valid_domain(b"a_b.example")


def test_an_empty_name_is_valid() -> None:
    assert valid_user(b"")
    assert valid_domain(b"")


def test_lower_case_is_of_ascii_only() -> None:
    assert lower(b"BoB@[\\]^_`{\xc4\xe4") == b"bob@[\\]^_`{\xc4\xe4"


@given(st.binary(max_size=40))
def test_a_name_in_lower_case_is_as_valid_as_before(name: bytes) -> None:
    assert valid_user(lower(name)) == valid_user(name)
    assert valid_domain(lower(name)) == valid_domain(name)


def test_what_vdelivermail_called_invalid_is_invalid_and_nothing_else() -> None:
    said = {"invalid-username": 0, "locked": 0, "over-quota": 0}
    for path in CORPUS.glob("*.json"):
        for case in json.loads(path.read_bytes())["cases"]:
            reason = case.get("details", {}).get("reason")
            if reason in said:
                said[reason] += 1
                valid = valid_user(case["local"].encode("latin-1")) and valid_domain(case["domain"].encode("latin-1"))
                assert valid == (reason != "invalid-username"), (path, case)
    assert all(said.values()), said
