"""Any bytes as the value of vpasswd.cdb, or the rest of a line of vpasswd: an account, never an exception.

Its flags are 32 bits, no field holds what parts fields or what ends a string, and what proves it shows
nothing and can be asked.  Never for a hash: mutated, it may cost hours.
"""

from __future__ import annotations

from cvm_qmail.passwords import StoredPassword
from cvm_qmail.plugin import Challenge, Password
from cvm_vpopmail.vpasswd import parse

HASH = b"$6$saltstring$ckDWm30bHZTAPl4bvn6jhVFIk9SbN7L0FY7mw4v1Vr9i.v3TWks0pkiAzQTb96c67HIxotZ.vI1dTy3tzt7BI."

SEEDS = [
    HASH + b":1:0:Bob:/home/vpopmail/domains/example.com/bob:NOQUOTA",
    HASH + b":1:2064:Bob B.:/v/d/0/bob:1000S,10C:a:b:c\n",
    b"{CRYPT}abohqbqzB/3zg:2: +16x:::10MB:",
    b"x:1:-9223372036854775809:g:/d\0:",
    b":::::::",
    b"x:1:0",
    b"",
]

PROOFS = (
    Password(b""),
    Password(b"x\0"),
    Challenge(b"<1@x>", b"0" * 32, b"CRAM-MD5"),
    Challenge(b"<1@x>", b"\0" * 16, b"APOP"),
    Challenge(b"", b"", b""),
)


def check(data: bytes) -> None:
    """See the head of this file."""
    for clear in (True, False):
        account = parse(b"bob", data, clear=clear)
        assert account.name == b"bob"
        assert 0 <= account.flags < 1 << 32
        assert not set(account.gecos + account.directory + account.quota) & set(b":\0")
        assert isinstance(account.secret, StoredPassword)
        assert repr(account.secret) == "StoredPassword(...)"
        assert len(account.secret.kind()) <= len(data)
        for service in ("smtp", "pop3", "imap"):
            assert not any(account.secret.verify(proof, service) for proof in PROOFS)
