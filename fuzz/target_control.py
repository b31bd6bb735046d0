"""Any bytes as control files (five, separated by FF FF): tables or `Unavailable`, never anything else.

A file stands for "missing" when it is ``FE``.  Names in the tables are in lower case and hold neither LF
nor NUL; and every address has a way through them that ends.
"""

from __future__ import annotations

from cvm_qmail.answer import Recipient, Unavailable
from cvm_qmail.rules.domains import complete, rewrite
from cvm_qmail.tables.control import parse

ADDRESSES = (
    Recipient(b"joe", b"example.org"),
    Recipient(b"joe", None),
    Recipient(b"", b""),
    Recipient(b"a%b%v.example%hack@x", b"HACK"),
    Recipient(b"%" * 50, b"x.y.v.example."),
)

SEEDS = [
    b"\xff\xff".join([b"me\n", b"env\n", b"example.org\nlocal\0two\n#no\n", b"hack\n", b"v.example:joe\n.x:\n:all\n"]),
    b"\xff\xff".join([b"me \t\nx\n", b"\xfe", b"\xfe", b"\xfe", b"\xfe"]),
    b"\xff\xff".join([b"\xfe"] * 5),
    b"\xff\xff".join([b"", b"", b"", b"", b""]),
    b"\xff\xff".join([b"\n", b" \n", b" \t\r\n", b"\n\n", b"A:B:C\na:\n:\0:x\0\n"]),
]


def check(data: bytes) -> None:
    """See the head of this file."""
    parts = (*data.split(b"\xff\xff"), b"", b"", b"", b"", b"")[:5]
    me, envnoathost, locals_, percenthack, virtualdomains = (None if part == b"\xfe" else part for part in parts)
    try:
        controls = parse(me, envnoathost, locals_, percenthack, virtualdomains)
    except Unavailable:
        assert me is None
        assert locals_ is None
        return
    assert b"\n" not in controls.envnoathost
    for table in (controls.locals, controls.percenthack, controls.virtualdomains):
        assert isinstance(table, dict)
        for name in table:
            assert name == name.lower()
            assert not set(name) & {0, 10}
    for recipient in ADDRESSES:
        assert b"@" not in rewrite(complete(recipient, controls.envnoathost), controls).host
