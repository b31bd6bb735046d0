"""Addresses as front ends send them.

Invariants: every sequence of bytes is an address: nothing is rejected here.  The domain begins after the last ``@``.

Source: RFC 5321 (4.1.2, quoted strings); qmail-smtpd.c (addrparse), which passes on the bare form.
"""

from __future__ import annotations

from cvm_qmail.answer import Recipient


def recipient(address: bytes) -> Recipient:
    """The recipient of a bare address: without ``@`` it has no domain, ``joe@`` has an empty one."""
    account, at, domain = address.rpartition(b"@")
    return Recipient(account, domain) if at else Recipient(address, None)


def unquoted(address: bytes) -> bytes:
    """The bare form of an address whose local part may be a quoted string; any other address is returned unchanged.

    Postfix quotes the keys of its maps, and Haraka keeps what the client wrote: ``"a b"@example.org`` is the
    mailbox ``a b``, and ``""@example.org`` the empty local part.
    """
    if not address.startswith(b'"'):
        return address
    local = bytearray()
    at, end = 1, len(address)
    while at < end:
        byte = address[at]
        if byte == 0x22:
            rest = address[at + 1 :]
            # a quote in the middle, as in "a"b@c: not a quoted string, so its meaning is not known
            return bytes(local) + rest if not rest or (rest[0] == 0x40 and b"@" not in rest[1:]) else address
        if byte == 0x5C:
            at += 1
            if at == end:
                break
        local.append(address[at])
        at += 1
    return address
