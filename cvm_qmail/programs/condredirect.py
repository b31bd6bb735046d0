"""condredirect ADDRESS PROGRAM [ARGUMENT...]: forwards the message and ends the file, if PROGRAM exits 0.

Source: condredirect(1), condredirect.c.
"""

from __future__ import annotations

from collections.abc import Sequence

from cvm_qmail.plugin import DEFER, STOP, Delivery, Ran, Tables
from cvm_qmail.programs.options import USAGE


def program(arguments: Sequence[bytes], delivery: Delivery, _: Tables) -> Ran | None:
    """What condredirect would exit with; None if PROGRAM's status is not known without a run."""
    if len(arguments) < 2:
        return USAGE
    ran = delivery.execute(arguments[1:])
    if ran is None or ran.status is None:
        return None
    if ran.status == 0:
        return Ran(STOP, "program")
    return ran if ran.status == DEFER else Ran(0)
