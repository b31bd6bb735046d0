"""Any bytes as a .forward file: addresses or no list of them, in bounded time; read the same in two ways.

An address holds nothing but what its line holds; comments give none.
"""

from __future__ import annotations

from cvm_qmail.programs.dotforward import Unparsable, parse

SEEDS = [
    b"ann, bob fred\n",
    b"Ann Smith <ann@x>, (c) bob\n",
    b'"|vacation joe", \\joe\n',
    b"<@relay:ann@x>, [10.0.0.1]@y;\n",
    b'"open\n',
    b"(a(b)c)d\\",
    b"<> :;,.@\n",
]


def check(data: bytes) -> None:
    """See the head of this file."""
    line = data.partition(b"\n")[0] + b"\n"
    try:
        found = list(parse(line))
    except Unparsable:
        return
    for has_at, address in found:
        assert set(address) <= set(line), address
        assert not has_at or b"@" in address
    again = list(
        parse(line.replace(b"\t", b" ") if b"\\" not in line and b'"' not in line and b"[" not in line else line)
    )
    assert again == found
    alone = list(parse(b"(comment) " + line))
    assert alone == found
