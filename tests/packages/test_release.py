"""scripts/release, and what it builds, installed as docs/install.md says."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hosts import temporary_directory
from machines import TOP

import cvm_qmail

pytestmark = [
    pytest.mark.root,
    pytest.mark.peer("dpkg-buildpackage", "dh"),
    pytest.mark.skipif(not (TOP / ".venv").exists(), reason="PEER MISSING: .venv, which scripts/test makes"),
]


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def test_it_has_built_everything_twice_with_the_same_bytes(release: Path) -> None:
    version = cvm_qmail.__version__
    names = [f"cvm-qmail_{version}_all.deb", f"cvmctl_{version}_all.deb"]
    names += [f"cvm_qmail-{version}-py3-none-any.whl", f"cvm_qmail-{version}.tar.gz"]
    assert sorted(path.name for path in (release / "dist").iterdir()) == sorted([*names, "SHA256SUMS"])
    sums = (release / "dist/SHA256SUMS").read_text()
    for name in names:
        assert f"{hashlib.sha256((release / 'dist' / name).read_bytes()).hexdigest()}  {name}\n" in sums
    assert "(2025-06-15)" in (release / "CHANGELOG.md").read_text()
    assert "Sun, 15 Jun 2025 15:06:40 +0000" in (release / "debian/changelog").read_text()


@pytest.mark.peer("pipx")
def test_pipx_installs_the_wheel(release: Path) -> None:
    (wheel,) = (release / "dist").glob("*.whl")
    with temporary_directory() as home:
        places = {"PIPX_HOME": str(home / "pipx"), "PIPX_BIN_DIR": str(home / "bin")}
        run("pipx", "install", f"cvm-qmail[tool] @ file://{wheel}", **places)
        assert sorted(os.listdir(home / "bin")) == sorted(PROGRAMS)
        works(home / "bin")


def test_the_lines_of_the_readme_make_an_environment(release: Path) -> None:
    (wheel,) = (release / "dist").glob("*.whl")
    section = (TOP / "README.md").read_text().partition("\n## Install\n")[2]
    block = section.partition("```sh\n")[2].partition("```")[0]
    with temporary_directory() as directory:
        shutil.copy(wheel, directory)
        commands = block.replace("/opt/cvm-qmail", str(directory / "venv")).replace("'.[tool]'", f"'{wheel}[tool]'")
        run("sh", "-ec", commands)
        works(directory / "venv/bin")


PROGRAMS = ("cvm-directory", "cvm-gateway", "cvm-qmail", "cvm-rcptcheck", "cvm-vmailmgr", "cvm-vpopmail", "cvmctl")


def works(programs: Path) -> None:
    """What was installed there runs, and has what setup writes."""
    for name in set(PROGRAMS) - {"cvm-rcptcheck"}:
        assert cvm_qmail.__version__ in run(programs / name, "--version")
    shown = run(programs / "cvmctl", "setup", "--supervisor", "s6")
    assert "/etc/s6/cvm-rcptto" in shown
    assert "/bin/cvm-qmail" in shown
    check = subprocess.run(
        [programs / "cvm-rcptcheck"],
        env={"RECIPIENT": "joe@example.org", "CVM_LOOKUP": "cvm-local:/nowhere"},
        capture_output=True,
        check=False,
    )
    assert check.returncode == 111, "no daemon is a temporary failure"
