"""Who logs in, and whether the service is open to that account.

    login             split at the first @; without one at the first %; without one at the first /
    no domain         VPOPMAIL_DOMAIN, even if it is empty; else the first line of etc/defaultdomain
    CVM               a DOMAIN that is not empty: ACCOUNT is the user as it is; else ACCOUNT is the login

Invariants: no alias and no extension logs in, only the name of an account.  Names are in lower case, and of the
characters of `names`.  The flags of an account and, unless it has V_OVERRIDE, those of its domain's
limits close services; BOUNCE_MAIL closes none.  Not here: builds with IP alias domains, which find the domain by the
local address before defaultdomain; no credential of CVM has that address.

Source: vpopmail.c (parse_email, vset_default_domain), vchkpw.c (login_virtual_user), vlimits.c
(vlimits_setflags).
"""

from __future__ import annotations

from typing import NamedTuple

from cvm_qmail.answer import Recipient
from cvm_vpopmail.accounts import Flag
from cvm_vpopmail.rules.limits import Limits
from cvm_vpopmail.rules.names import lower, valid_domain, valid_user

NEEDS_HOME = frozenset({"pop3", "imap", "webmail"})
"""Services that reject an account whose home is missing and cannot be made."""

_SEPARATORS = (b"@", b"%", b"/")

_CLOSED_BY = {
    "smtp": Flag.NO_SMTP,
    "submission": Flag.NO_SMTP,
    "pop3": Flag.NO_POP,
    "imap": Flag.NO_IMAP,
    "webmail": Flag.NO_WEBMAIL,
}


class Login(NamedTuple):
    """The user and domain of a login, in lower case; `domain` empty: none was given."""

    user: bytes
    domain: bytes


def split(login: bytes) -> Login:
    """The two parts of a login that was given as one."""
    login = lower(login)
    for separator in _SEPARATORS:
        user, found, domain = login.partition(separator)
        if found:
            return Login(user, domain)
    return Login(login, b"")


def address(recipient: Recipient) -> Login:
    """The login in the credentials ACCOUNT and DOMAIN."""
    account, domain = recipient
    if domain:
        return Login(lower(account), lower(domain))
    return split(account)


def valid(user: bytes, domain: bytes) -> bool:
    """Whether vchkpw looks up such an account at all."""
    return valid_user(user) and valid_domain(domain)


def limit_flags(flags: int, limits: Limits | None) -> int:
    """The flags that the domain's limits add to an account that has `flags`."""
    if limits is None or flags & Flag.V_OVERRIDE:
        return 0
    return limits.flags


def forbidden(service: str, flags: int) -> bool:
    """Whether `flags`, the account's and its domain's, close the service."""
    return bool(flags & _CLOSED_BY[service])
