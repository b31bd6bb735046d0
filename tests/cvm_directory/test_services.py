"""The units of contrib: systemd finds nothing wrong with them, and confines them well."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import temporary_directory

CONTRIB = Path(__file__).parents[2] / "contrib/systemd"
UNITS = ("cvm-directory.service", "cvm-publish.service", "cvm-publish.timer")

pytestmark = pytest.mark.peer("systemd-analyze")


@pytest.fixture
def units() -> Iterator[dict[str, Path]]:
    """The units as installed, but for the programs' paths."""
    programs = Path(sys.executable).parent
    with temporary_directory() as directory:
        copies = {name: directory / name for name in UNITS}
        for name, copy in copies.items():
            copy.write_text((CONTRIB / name).read_text().replace("/usr/local/bin", str(programs)))
        yield copies


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_nothing_wrong_with_them(name: str, units: dict[str, Path]) -> None:
    done = analyze("verify", "--man=no", units[name])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("name", "exposure"), [("cvm-directory.service", 25), ("cvm-publish.service", 45)])
def test_systemd_calls_them_well_confined(name: str, exposure: int, units: dict[str, Path]) -> None:
    done = analyze("security", "--offline=true", "--no-pager", f"--threshold={exposure}", units[name])
    assert done.returncode == 0, done.stdout.splitlines()[-1:]


def test_they_start_programs_that_are_there(units: dict[str, Path]) -> None:
    for name in UNITS[:2]:
        (command,) = re.findall(r"^ExecStart=(\S+)", units[name].read_text(), re.MULTILINE)
        assert Path(command).exists()
