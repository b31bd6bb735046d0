"""scripts/release.py: the version and the date in the files that have them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import release

import cvm_qmail

TOP = Path(__file__).parents[2]
DATE = datetime(2026, 12, 24, 18, 30, tzinfo=UTC)

CHANGES = "# Changes\n\n## Unreleased\n\nNew.\n\n## 1.0.0 (2026-11-21)\n\nOld.\n"
DEBIAN = """cvm-qmail (1.1.0) unstable; urgency=medium

  * Changes.

 -- Somebody <somebody@example.org>  Thu, 26 Nov 2026 00:00:00 +0000
"""


def test_the_section_of_what_is_not_released_gets_version_and_date() -> None:
    assert "## 1.2.0 (2026-12-24)\n\nNew." in release.in_changes(CHANGES, "1.2.0", DATE)


def test_releasing_again_changes_the_date_only() -> None:
    once = release.in_changes(CHANGES, "1.2.0", DATE)
    assert release.in_changes(once, "1.2.0", DATE) == once


def test_a_version_without_a_section_is_refused() -> None:
    with pytest.raises(release.Refused, match=r"found the section 1\.0\.0, expected 1\.2\.0"):
        release.in_changes(CHANGES.replace("## Unreleased\n\nNew.\n\n", ""), "1.2.0", DATE)


@pytest.mark.parametrize(("version", "debian"), [("1.2.0", "1.2.0"), ("1.2.0rc1", "1.2.0~rc1")])
def test_debian_gets_an_entry_on_top(version: str, debian: str) -> None:
    new = release.in_debian(DEBIAN, version, DATE)
    assert new.startswith(f"cvm-qmail ({debian}) unstable; urgency=medium\n\n  * Changes.\n\n -- Somebody")
    assert new.endswith("\n\n" + DEBIAN)
    assert "  Thu, 24 Dec 2026 18:30:00 +0000\n\ncvm-qmail (1.1.0)" in new


def test_and_a_new_date_where_it_has_one() -> None:
    new = release.in_debian(DEBIAN, "1.1.0", DATE)
    assert new == DEBIAN.replace("Thu, 26 Nov 2026 00:00:00", "Thu, 24 Dec 2026 18:30:00")


def test_a_version_is_three_numbers(tmp_path: Path) -> None:
    with pytest.raises(release.Refused):
        release.release(tmp_path, "1.2", DATE)


def test_the_versions_of_this_tree_are_one() -> None:
    assert re.findall(r"^## (\S+) ", (TOP / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == cvm_qmail.__version__
    assert (TOP / "debian/changelog").read_text().startswith(f"cvm-qmail ({cvm_qmail.__version__}) ")
