"""Which names are valid for users and domains in vpopmail, and what lower case means to it.

Invariants: everything is bytes; "lower case" means A-Z only.  A name that is not valid never reaches a table:
vdelivermail bounces it ("invalid username") and vchkpw ends with 20, before anything else is read.
An empty name is valid, and simply not found.

Source: vpopmail.c (is_username_valid, is_domain_valid, lowerit); checked against the running programs.
"""

from __future__ import annotations

_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_DIGITS = b"0123456789"

_USER = _LETTERS + _DIGITS + b"!#$&'*+-./=?^_`{|}~"
_DOMAIN = _LETTERS + _DIGITS + b"-."


def lower(name: bytes) -> bytes:
    """The name with A-Z in lower case, and nothing else changed."""
    return name.lower()  # of bytes: ASCII only, whatever the locale


def valid_user(name: bytes) -> bool:
    """Whether every character is allowed in the name of a user."""
    return not name.translate(None, _USER)


def valid_domain(name: bytes) -> bool:
    """Whether every character is allowed in the name of a domain."""
    return not name.translate(None, _DOMAIN)
