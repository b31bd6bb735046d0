"""Parts of Markdown pages that programs make.

Between a line ``<!-- made by PROGRAM: NAME -->`` and a line ``<!-- end -->`` a page belongs to the program; all else is
written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """The lines of a table."""
    for row in (head, ("---",) * len(head), *rows):
        yield "| " + " | ".join(row) + " |"


def with_parts(page: str, program: str, parts: Mapping[str, Callable[[], Iterable[str]]]) -> str:
    """A page with its parts made by `program` as they are now.  Raises KeyError for a name that is not in `parts`."""

    def part(match: re.Match[str]) -> str:
        text = "\n".join(parts[match["name"]]()).strip("\n")
        return f"{match['head']}\n{text}\n\n{match['end']}"

    pattern = rf"^(?P<head><!-- made by {program}: (?P<name>[a-z ]+) -->\n).*?^(?P<end><!-- end -->)$"
    return re.sub(pattern, part, page, flags=re.MULTILINE | re.DOTALL)
