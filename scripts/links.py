"""Names the links of Markdown pages that lead nowhere: to a file or a heading that does not exist.

    scripts/links.py PAGE...     exit status 1 if there is one

Links to other hosts are not followed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def headings(page: str) -> set[str]:
    """What a link may have after the ``#``: GitHub's names for the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", _FENCED.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def dead(path: Path) -> list[str]:
    """The links of this page that lead nowhere."""
    found = []
    for link in _LINK.findall(_FENCED.sub("", path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, heading = link.partition("#")
        file = path.parent / target if target else path
        if not file.exists() or (heading and heading not in headings(file.read_text(encoding="utf-8"))):
            found.append(link)
    return found


def main(pages: list[str]) -> int:
    """Prints each dead link with its page; the exit status."""
    lines = [f"{page}: no such file or heading: {link}" for page in pages for link in dead(Path(page))]
    for line in lines:
        print(line)
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
