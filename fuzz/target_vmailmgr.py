"""Any bytes as a record of vmailmgr: a virtual user without an empty forward, or None; its password is never shown."""

from __future__ import annotations

from cvm_qmail.programs.vmailmgr_record import NEVER, parse

SEEDS = [
    b"\2\x08\1\x0a\1\0*\0./users/a\0\0A Person\0-\0-\0-\0-\x00900000000\0-\0",
    b"\1$1$a$b\0\0x@y\0z\0\0\0001\0002\0003\0004\0005\0006\0",
    b":$1$a$b:./users/a",
    b":*:&x@far.example,y",
    b"\2\x08\0\0*\0/abs\0\0\0\0\0\0\0\x004294967296\0",
]


def check(data: bytes) -> None:
    """See the head of this file."""
    entry = parse(data)
    if data[:1] not in (b"\1", b"\2", b":"):
        assert entry is None
    if entry is None:
        return
    assert all(entry.forwards)
    assert 0 <= entry.expiry <= NEVER
    assert not entry.delivers or entry.directory
    assert b"\0" not in entry.directory + entry.password
    marked = parse(data.replace(entry.password, b"Hidden!", 1)) if entry.password else None
    assert "Hidden!" not in repr(marked)
