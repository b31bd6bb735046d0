"""forward ADDRESS...: queues a copy for each address, whether it exists or not.

Source: forward(1), forward.c.
"""

from __future__ import annotations

from collections.abc import Sequence

from cvm_qmail.plugin import Delivery, Ran, Tables


def program(arguments: Sequence[bytes], _: Delivery, __: Tables) -> Ran:
    """What forward would exit with."""
    return Ran(0, forwards=tuple(arguments))
