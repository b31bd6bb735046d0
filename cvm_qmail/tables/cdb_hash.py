"""The hash of constant databases: cdblib's, or in plain Python on hosts without pure-cdb (Debian 12 does not have it).

Source: cdb(5), cdb_hash.c.
"""

from __future__ import annotations

__all__ = ["djb_hash", "hash_in_python"]


def hash_in_python(key: bytes) -> int:
    """Its hash; ten times as slow as that of cdblib, which is compiled."""
    hashed = 5381
    for byte in key:
        hashed = hashed * 33 ^ byte  # cut to 32 bits at the end only: higher bits never reach lower ones
    return hashed & 0xFFFFFFFF


try:
    from cdblib import djb_hash
except ImportError:
    djb_hash = hash_in_python
