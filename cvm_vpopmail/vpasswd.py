"""An account as vpasswd writes it: one line each, of which vpasswd.cdb holds the rest after the name.

    name:hash:apop:flags:gecos:dir:quota[:clear]

Fields that are missing at the end are empty, missing numbers are 0.  The clear text is all that follows
the quota, colons included; without clear passwords it is ignored.  A string ends at a NUL, as in C.

Source: vcdb.c (vauth_getpw, make_vpasswd_cdb).
"""

from __future__ import annotations

from cvm_qmail.passwords import StoredPassword
from cvm_vpopmail.accounts import Account
from cvm_vpopmail.rules.numbers import bits

_FIELDS = 7
"""After the name."""


def parse(name: bytes, value: bytes, *, clear: bool) -> Account:
    """The account whose line goes on with `value` after ``name:``.  `clear`: whether the build has clear passwords."""
    line = value.partition(b"\0")[0].removesuffix(b"\n")
    fields = line.split(b":", _FIELDS - 1)
    fields += [b""] * (_FIELDS - len(fields))
    hashed, _, flags, gecos, directory, quota, plain = fields
    return Account(name, bits(flags), gecos, directory, quota, StoredPassword(hashed, plain if clear else b""))
