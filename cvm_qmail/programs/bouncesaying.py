"""bouncesaying TEXT [PROGRAM [ARGUMENT...]]: bounces the message, if PROGRAM exits 0.

Source: bouncesaying(1), bouncesaying.c.
"""

from __future__ import annotations

from collections.abc import Sequence

from cvm_qmail.plugin import DEFER, Delivery, Ran, Tables
from cvm_qmail.programs.options import USAGE


def program(arguments: Sequence[bytes], delivery: Delivery, _: Tables) -> Ran:
    """What bouncesaying would exit with."""
    if not arguments:
        return USAGE
    if len(arguments) == 1:
        return Ran(100, "bouncesaying")
    ran = delivery.execute(arguments[1:])
    if ran is None or ran.status not in (0, DEFER):
        return Ran(0)  # an unknown program may bounce or defer it, too, but never ends the file with success
    return Ran(100, "bouncesaying") if ran.status == 0 else ran
