"""Numbers as C parses them: vpopmail uses atoi, strtol and strtoll.

Blanks, a sign, digits; what follows is ignored, and no digits are 0.  A number that does not fit into 64 bits becomes
the nearest that does; atoi then keeps the lower 32 bits, as on every 64-bit host.

Source: strtol(3), atoi(3) of the GNU C library.
"""

from __future__ import annotations

import re

_NUMBER = re.compile(rb"[ \t\n\v\f\r]*([+-]?)0*([0-9]*)")
_MAX = (1 << 63) - 1
_DIGITS = len(str(_MAX))


def strtol(text: bytes) -> int:
    """The number that `text` begins with."""
    match = _NUMBER.match(text)
    if match is None or not match[2]:
        return 0
    value = int(match[2]) if len(match[2]) <= _DIGITS else _MAX + 1  # Python refuses thousands of digits
    return max(-value, -_MAX - 1) if match[1] == b"-" else min(value, _MAX)


def bits(text: bytes) -> int:
    """The result of atoi for `text`, as 32 bits without a sign."""
    return strtol(text) & 0xFFFFFFFF
