"""except PROGRAM [ARGUMENT...]: bounces the message, if PROGRAM exits 0.

Source: except(1), except.c.
"""

from __future__ import annotations

from collections.abc import Sequence

from cvm_qmail.plugin import DEFER, Delivery, Ran, Tables
from cvm_qmail.programs.options import USAGE


def program(arguments: Sequence[bytes], delivery: Delivery, _: Tables) -> Ran:
    """What except would exit with."""
    if not arguments:
        return USAGE
    ran = delivery.execute(arguments)
    if ran is None or ran.status not in (0, DEFER):
        return Ran(0)  # see bouncesaying
    return Ran(100, "program-bounces") if ran.status == 0 else ran
