"""Local, virtual or remote: what qmail-send's `rewrite` does with an envelope recipient.

Invariants: everything is bytes; "lower case" means A-Z only; an address is split at its last ``@``.  The
order is percenthack, locals, virtualdomains, and the first that knows the domain ends it.

Source: qmail-send(8), qmail-send.c (rewrite), constmap.c.
"""

from typing import NamedTuple

from cvm_qmail.answer import Recipient, Table, new


class Controls(NamedTuple):
    """The control files that rewriting uses.  Keys of the tables are in lower case."""

    envnoathost: bytes
    locals: Table[bytes, object]
    percenthack: Table[bytes, object]
    virtualdomains: Table[bytes, bytes]
    """From a domain (or whole address) to its prepend; an empty prepend is an exception: remote."""


class Local(NamedTuple):
    """Delivered here.  `local` is what qmail-lspawn is asked for, `host` what follows its last ``@``."""

    local: bytes
    host: bytes
    table: str
    """The control file that decided: locals or virtualdomains."""


class Remote(NamedTuple):
    """Not delivered here: unknown to both tables, or an exception entry of virtualdomains."""

    local: bytes
    host: bytes
    exception: bool


def complete(recipient: Recipient, envnoathost: bytes) -> bytes:
    """The whole address: one without ``@`` gets envnoathost."""
    account, domain = recipient
    if domain is not None:
        return b"%s@%s" % (account, domain)
    if b"@" in account:
        return account
    return b"%s@%s" % (account, envnoathost)


def rewrite(address: bytes, controls: Controls) -> Local | Remote:
    """Where qmail-send routes `address`, which contains an ``@``."""
    address = _percenthack(address, controls.percenthack)
    before, _, host = address.rpartition(b"@")
    domain = host.lower()
    if controls.locals.get(domain) is not None:
        return new(Local, (before, host, "locals"))
    prepend = _virtual(before.lower(), domain, controls.virtualdomains)
    if prepend:
        return Local(b"%s-%s" % (prepend, before), host, "virtualdomains")
    return Remote(before, host, exception=prepend is not None)


def _percenthack(address: bytes, percenthack: Table[bytes, object]) -> bytes:
    at = address.rindex(b"@")
    while percenthack.get(address[at + 1 :].lower()) is not None:
        percent = address.rfind(b"%", 0, at)
        if percent < 0:
            break
        address = b"%s@%s" % (address[:percent], address[percent + 1 : at])
        at = percent
    return address


def _virtual(before: bytes, domain: bytes, virtualdomains: Table[bytes, bytes]) -> bytes | None:
    """The first entry: whole address, domain, its suffixes from a dot on (longest first), the empty name."""
    prepend = virtualdomains.get(b"%s@%s" % (before, domain))
    if prepend is not None:
        return prepend
    prepend = virtualdomains.get(domain)
    dot = -1
    while prepend is None:
        dot = domain.find(b".", dot + 1)
        if dot < 0:
            return virtualdomains.get(b"")
        prepend = virtualdomains.get(domain[dot:])
    return prepend
