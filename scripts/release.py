"""release.py VERSION: writes the version and the date into the files that have them.

The date is that of SOURCE_DATE_EPOCH.  CHANGELOG.md must have the section already: what changes for mail is
for people to say.
"""

from __future__ import annotations

import os
import re
import sys
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

VERSION = re.compile(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?")


class Refused(Exception):
    """It cannot be released so."""


def in_package(text: str, version: str) -> str:
    """cvm_qmail/__init__.py."""
    return re.sub(r'^__version__ = ".*"$', f'__version__ = "{version}"', text, count=1, flags=re.MULTILINE)


def in_changes(text: str, version: str, date: datetime) -> str:
    """CHANGELOG.md: the first section is that of this version, or of what is not released yet.  Raises `Refused`."""
    first = re.search(r"^## (\S+).*$", text, re.MULTILINE)
    if first is None or first[1] not in (version, "Unreleased"):
        raise Refused(f"CHANGELOG.md: found the section {first[1] if first else 'none'}, expected {version} first")
    return f"{text[: first.start()]}## {version} ({date:%Y-%m-%d}){text[first.end() :]}"


def in_debian(text: str, version: str, date: datetime) -> str:
    """debian/changelog: a new entry, or a new date for the one of this version."""
    debian = re.sub(r"(a|b|rc)(?=\d+$)", r"~\1", version)
    entry = text[: text.index("\n -- ")]
    rest = text[text.index("\n", len(entry) + 1) :].lstrip("\n")
    maintainer = re.findall(r"^ -- (.*>)  ", text, re.MULTILINE)[0]
    if entry.partition(")")[0] != f"cvm-qmail ({debian}":
        rest = text
        entry = re.sub(r"\(.*?\)", f"({debian})", entry, count=1)
    signed = f"{entry}\n -- {maintainer}  {format_datetime(date)}\n"
    return f"{signed}\n{rest}" if rest else signed


def release(top: Path, version: str, date: datetime) -> None:
    """Writes the files, all or none.  Raises `Refused`."""
    if not VERSION.fullmatch(version):
        raise Refused(f"{version}: expected a version like 1.2.3 or 1.2.3rc1")
    package, changes, debian = (top / name for name in ("cvm_qmail/__init__.py", "CHANGELOG.md", "debian/changelog"))
    new = {
        package: in_package(package.read_text(), version),
        changes: in_changes(changes.read_text(), version, date),
        debian: in_debian(debian.read_text(), version, date),
    }
    for path, text in new.items():
        path.write_text(text)


if __name__ == "__main__":
    try:
        release(Path(), sys.argv[1], datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC))
    except Refused as refused:
        sys.exit(f"release: {refused}")
