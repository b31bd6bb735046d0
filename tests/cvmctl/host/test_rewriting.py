"""The way back from the log's address to the sender's."""

from __future__ import annotations

import pytest
from hosts import CORPUS, as_bytes, load
from hypothesis import given
from hypothesis import strategies as st

from cvm_qmail.cvmctl.host.rewriting import Origin, logged, original_address
from cvm_qmail.rules.domains import Controls, Local, rewrite

CONTROLS = Controls(
    b"mx.example",
    {b"example.org": True},
    {b"hack.example": True},
    {
        b"v.example": b"joe",
        b".w.example": b"alias-Sub",
        b"out.w.example": b"",
        b"boss@v.example": b"ann-v",
        b"dash.example": b"a-b-",
        b"my-shop.example": b"my-shop.example",
    },
)


@pytest.mark.parametrize(
    ("shown", "address"),
    [
        (b"joe-x@example.org", b"joe-x@example.org"),
        (b"@example.org", b"@example.org"),
        (b"joe-bob@v.example", b"bob@v.example"),
        (b"joe-joe-bob@v.example", b"joe-bob@v.example"),
        (b"joe-@v.example", b"@v.example"),
        (b"joe-a@b@V.Example", b"a@b@V.Example"),
        (b"ann-v-Boss@v.example", b"Boss@v.example"),
        (b"alias-Sub-bob@x.w.example", b"bob@x.w.example"),
        (b"a-b--bob@dash.example", b"bob@dash.example"),
        (b"my-shop.example-bob-x@my-shop.example", b"bob-x@my-shop.example"),
    ],
)
def test_what_the_control_files_put_in_front_is_taken_off(shown: bytes, address: bytes) -> None:
    assert original_address(shown, CONTROLS) == Origin(address)


@pytest.mark.parametrize(
    "shown",
    [
        b"ann-bob@v.example",
        b"bob@v.example",
        b"joe-boss@v.example",
        b"alias-sub-bob@x.w.example",
        b"joe-bob@out.w.example",
        b"joe-bob@elsewhere.example",
        b"nonsense",
        b"",
    ],
)
def test_what_they_lead_nobody_to_has_no_way_back(shown: bytes) -> None:
    assert original_address(shown, CONTROLS) is None


def test_the_log_hides_bytes() -> None:
    assert logged(b"a b\n%c\xe9\x7f~") == b"a_b/_c__~"
    assert not Origin(b"a_b@x").exact
    assert not Origin(b"a/b@x").exact
    assert Origin(b"a-b@x").exact


def test_an_address_of_dashes_takes_no_age() -> None:
    assert original_address(b"-" * 30000 + b"@v.example", CONTROLS) is None


LOCAL_PARTS = st.text("ab-_@%. \xe9", max_size=8).map(as_bytes)
DOMAINS = st.sampled_from([b"example.org", b"V.example", b"x.w.example", b"o\xe9.example", b""])
ENTRIES = st.one_of(DOMAINS, st.just(b".example"), st.tuples(LOCAL_PARTS, DOMAINS).map(b"@".join))
SOME_CONTROLS = st.builds(
    Controls,
    st.just(b""),
    st.dictionaries(DOMAINS.map(bytes.lower), st.just(True), max_size=1),
    st.dictionaries(DOMAINS.map(bytes.lower), st.just(True), max_size=1),
    st.dictionaries(ENTRIES.map(bytes.lower), LOCAL_PARTS, max_size=4),
)


@given(SOME_CONTROLS, LOCAL_PARTS, DOMAINS)
def test_the_way_back_leads_where_the_way_there_did(controls: Controls, account: bytes, domain: bytes) -> None:
    route = rewrite(b"%s@%s" % (account, domain), controls)
    if not isinstance(route, Local):
        return
    shown = logged(b"%s@%s" % (route.local, route.host))
    way = original_address(shown, controls)
    if way is None:  # an odd byte in the domain, or of a whole address, was needed to find its entry
        assert shown != b"%s@%s" % (route.local, route.host)
        return
    there = rewrite(way.address, controls)
    assert isinstance(there, Local)
    assert logged(b"%s@%s" % (there.local, there.host)) == shown


@pytest.mark.parametrize("path", sorted((CORPUS / "logs").glob("*.json")), ids=lambda path: path.stem)
def test_every_local_delivery_of_the_corpus_finds_its_recipient(path: object) -> None:
    facts = load(path)
    for row in facts["deliveries"]:
        original, recipient = as_bytes(row["original"]), as_bytes(row["recipient"])
        plain = logged(recipient) == recipient and b"%" not in original and b"@" in original
        if row["channel"] != "local" or not plain:
            continue
        way = original_address(recipient, controls_of(facts["phases"][row["phase"]]["control"], row))
        assert way == Origin(original)


def controls_of(control: dict[str, str], row: object) -> Controls:
    """The control files of a phase; its log was written by what the daemon had in force."""
    locals_ = control.get("locals", control["me"]).split()
    lines = (line for line in control.get("virtualdomains", "").split("\n") if ":" in line)
    virtual = {name.lower(): prepend for name, _, prepend in (line.partition(":") for line in lines)}
    return Controls(
        b"",
        {as_bytes(name.lower()): True for name in locals_},
        {},
        {as_bytes(name): as_bytes(prepend) for name, prepend in virtual.items()},
    )
