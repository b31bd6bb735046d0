"""What the properties are tried on: packets, databases, control files, lines.

A find becomes a case in the test of its module.
"""

from __future__ import annotations

from events import event
from hosts import cdb_bytes
from hypothesis import strategies as st

from cvm_qmail.answer import Facts
from cvm_qmail.protocols.cvm import packets as wire

# -- bytes --------------------------------------------------------------------------------------------

names = st.one_of(
    st.sampled_from([b"", b"joe", b"Joe-Foo", b"joe-list-x", b"alias", b"example.org", b"v.example", b"x.v.example"]),
    st.binary(max_size=12),
    st.binary(max_size=300),
)
"""Local parts and domains, likely and unlikely."""

texts = st.one_of(
    st.text(st.characters(max_codepoint=0xFF)),
    st.text(st.characters(categories=["Cs"])),
    st.text(st.characters(exclude_categories=[])),
)
"""All that a str can hold, surrogates too."""


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Something sound with bytes changed, cut off, put in or added."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        change = draw(st.sampled_from(["set", "insert", "delete", "cut", "append"]))
        if change == "set" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif change == "insert":
            data[at:at] = draw(st.binary(max_size=4))
        elif change == "delete":
            del data[at : at + draw(st.integers(1, 4))]
        elif change == "cut":
            del data[at:]
        elif change == "append":
            data += draw(st.binary(max_size=4))
    return bytes(data)


# -- packets ------------------------------------------------------------------------------------------

nonces = st.one_of(st.just(b""), st.binary(min_size=8, max_size=8), st.binary(max_size=255))
types = st.one_of(st.integers(1, 16), st.integers(1, 255))
values = st.one_of(st.binary(max_size=20), names, st.binary(min_size=200, max_size=255))
strings = values.map(lambda value: value.replace(b"\0", b""))
pairs = st.lists(st.tuples(types, values), max_size=6)

requests_2 = st.builds(lambda nonce, given: wire.Request(2, nonce, dict(given)), nonces, pairs)  # not all of them fit
requests_1 = st.builds(
    lambda account, domain, lone: wire.Request(1, b"", {1: account, **({2: domain} if domain else {}), **lone}),
    strings,
    strings,
    st.one_of(st.just({}), strings.filter(bool).map(lambda value: {3: value})),
)
requests = st.one_of(requests_1, requests_2)


def fitting(request: wire.Request) -> bool:
    """Whether there is a packet for it."""
    try:
        wire.pack_request(request)
    except wire.Malformed:
        return False
    return True


sound_packets = st.one_of(
    requests.filter(fitting).map(wire.pack_request),
    st.builds(  # repeated types, which a dict cannot hold
        lambda nonce, given: (
            b"%c%c%s%s\0"
            % (2, len(nonce), nonce, b"".join(b"%c%c%s" % (kind, len(value), value) for kind, value in given))
        ),
        st.binary(max_size=8),
        st.lists(st.tuples(types, st.binary(max_size=20)), max_size=6),
    ),
)
packets = st.one_of(sound_packets, damaged(sound_packets), st.binary(max_size=40), st.binary(max_size=600))

codes = st.one_of(st.sampled_from([0, 2, 4, 100]), st.integers(0, 255))
facts = st.lists(st.tuples(types, strings.filter(lambda value: len(value) < 256)), max_size=6)
sound_responses = st.one_of(
    st.builds(lambda code, given: b"%c%s\0" % (code, b"".join(b"%c%s\0" % fact for fact in given)), codes, facts),
    st.builds(
        lambda code, nonce, given: (
            b"%c%c%s%s\0"
            % (code, len(nonce), nonce, b"".join(b"%c%c%s" % (kind, len(value), value) for kind, value in given))
        ),
        codes,
        st.binary(max_size=8),
        facts,
    ),
)
responses = st.one_of(sound_responses, damaged(sound_responses), st.binary(max_size=40), st.just(b"\2\0"))

accepted = st.builds(
    Facts,
    username=strings,
    userid=st.integers(0, 2**32),
    groupid=st.integers(0, 2**32),
    realname=st.none() | strings,
    directory=strings,
    shell=st.none() | strings,
    groupname=st.none() | strings,
    sys_username=st.none() | strings,
    sys_directory=st.none() | strings,
    domain=st.none() | strings,
    mailbox=st.none() | strings,
)

# -- constant databases -------------------------------------------------------------------------------

keys = st.one_of(st.sampled_from([b"", b"!", b"!joe\0", b"!joe-"]), st.binary(max_size=6), st.binary(max_size=80))
records = st.lists(st.tuples(keys, st.binary(max_size=40)), max_size=20)
databases = records.map(cdb_bytes)

# -- files and lines ----------------------------------------------------------------------------------

lines = st.one_of(
    st.sampled_from(
        [b"example.org", b"v.example:joe", b":all", b"#no", b" ", b"a\0b:c", b"+list", b"./Mailbox", b"|x"]
    ),
    st.text("ab.:@%#& \t\r\0-+/|").map(str.encode),
    st.binary(max_size=30),
)
files = st.one_of(st.lists(lines, max_size=8).map(b"\n".join), st.binary(max_size=100))

words = st.from_regex(r"[a-z][a-z-]{0,20}", fullmatch=True)
events = st.builds(
    event,
    mark=st.sampled_from("+-=?"),
    account=st.binary(max_size=300),
    domain=st.none() | st.binary(max_size=300),
    user=st.binary(max_size=40),
    reason=words,
    where=st.binary(max_size=300),
    began=st.floats(0, 1e6),
    detail=texts,
)
