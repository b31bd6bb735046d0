"""How long each file of tests takes, so that the longest are begun first: one begun last would run alone.

    DURATIONS=write scripts/test -q

writes the table: seconds of setup, call and teardown, and the file.  It decides the order of files and nothing else.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

TABLE = Path(__file__).with_suffix(".txt")
WRITING = os.environ.get("DURATIONS") == "write"
WORTH_A_LINE = 1.0
"""Seconds: files below are left out."""


def known() -> dict[str, float]:
    """Seconds by file, below tests."""
    lines = (line.split() for line in TABLE.read_text().splitlines())
    return {file: float(seconds) for seconds, file in lines}


def place(item: pytest.Item) -> str:
    """The file of a test, as the table names it."""
    return str(item.path.relative_to(TABLE.parent))


def write(reports: list[pytest.TestReport]) -> None:
    """The table of what was run."""
    seconds: Counter[str] = Counter()
    for report in reports:
        seconds[report.nodeid.partition("::")[0].removeprefix("tests/")] += report.duration
    TABLE.write_text("".join(f"{n:.1f} {file}\n" for file, n in seconds.most_common() if n >= WORTH_A_LINE))
