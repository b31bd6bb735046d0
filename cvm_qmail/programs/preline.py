"""preline [-dDfFrR] PROGRAM [ARGUMENT...]: runs PROGRAM with header lines in front of the message.

Source: preline(1), preline.c.
"""

from __future__ import annotations

from collections.abc import Sequence

from cvm_qmail.plugin import BOUNCES, DEFER, Delivery, Ran, Tables
from cvm_qmail.programs.options import USAGE, BadUsage, options


def program(arguments: Sequence[bytes], delivery: Delivery, _: Tables) -> Ran | None:
    """What preline would exit with; None if PROGRAM's status is not known without a run."""
    try:
        words = options(arguments, b"dDfFrR")[1]
    except BadUsage:
        return USAGE
    if not words:
        return USAGE
    ran = delivery.execute(words)
    if ran is None or ran.status in BOUNCES or ran.status == DEFER:
        return None  # if PROGRAM ends without reading the message, preline may fail
    return ran
