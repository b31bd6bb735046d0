r"""From the address in qmail-send's log back to the sender's.

The log has the address after rewriting (`cvm_qmail.rules.domains`), with unusual bytes replaced:

    joe@example.org            joe-foo@v.example with v.example:joe in virtualdomains: joe-joe-foo@v.example
    joe%v.example@hack         the address after percenthack, with its virtual domain's prefix
    joe-a b@example.org        joe-a_b@example.org: newline becomes /; blanks, %, and bytes above 126 become _

The original is found by rewriting candidates: each rest of the local part after a ``-`` is rewritten with today's
control files, and is right if the log would show the same.  If several are right, they have the same local part for
qmail-lspawn, and so the same mailbox.

Invariants: pure; nothing is guessed.  Source: qmail-send.c (rewrite, logsafe in log.c).
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from cvm_qmail.rules.domains import Controls, Local, rewrite

DASHES = 100
"""The number of dashes in a local part at which a prefix may end."""

_SHOWN = bytes(
    ord("/") if byte == ord("\n") else byte if 32 < byte < 127 and byte != ord("%") else ord("_") for byte in range(256)
)


class Origin(NamedTuple):
    """An address that today's control files rewrite to the logged one."""

    address: bytes

    @property
    def exact(self) -> bool:
        """Whether every byte was certainly the same before it was logged."""
        return not (b"_" in self.address or b"/" in self.address)


def logged(address: bytes) -> bytes:
    """An address (or a text) as qmail-send writes it to its log."""
    return address.translate(_SHOWN)


def original_address(shown: bytes, controls: Controls) -> Origin | None:
    """An envelope recipient for the local address `shown` in the log; None if today's control files have none."""
    route = rewrite(shown, controls) if b"@" in shown else None
    if isinstance(route, Local) and route.table == "locals":
        return Origin(shown)
    local, _, host = shown.rpartition(b"@")
    for rest in islice(_after_dashes(local), DASHES):
        address = b"%s@%s" % (rest, host)
        route = rewrite(address, controls)
        if isinstance(route, Local) and logged(b"%s@%s" % (route.local, route.host)) == shown:
            return Origin(address)
    return None


def _after_dashes(local: bytes) -> list[bytes]:
    ends = [at for at, byte in enumerate(local) if byte == ord("-")]
    return [local[end + 1 :] for end in ends]
