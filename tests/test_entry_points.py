"""Plug-ins by name, as importlib.metadata finds them."""

from __future__ import annotations

import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from hosts import Host
from serving import run

from cvm_qmail.entry_points import installed, points

GROUPS = ("cvm_qmail.modules", "cvm_qmail.programs", "cvm_qmail.helpers", "console_scripts")


@pytest.mark.parametrize("group", GROUPS)
def test_what_is_found_is_what_importlib_finds(group: str) -> None:
    theirs = {point.name for point in entry_points(group=group)}
    assert set(installed(group)) == theirs
    assert theirs


def test_the_modules_of_this_distribution_load() -> None:
    from cvm_qmail import qmail
    from cvm_vpopmail import module

    modules = installed("cvm_qmail.modules")
    assert modules["cvm-qmail"]() is qmail.qmail
    assert modules["cvm-vpopmail"]() is module.module


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a = b:c", ("a", "b", "c")),
        ("a=b.c:d.e", ("a", "b.c", "d.e")),
        ("a = b", ("a", "b", "")),
        (" a b = c : d [extra] ", ("a b", "c", "d")),
        ("# a = b:c", None),
        ("a b", None),
        ("", None),
    ],
)
def test_a_line_of_entry_points_txt(line: str, expected: tuple[str, str, str] | None) -> None:
    text = f"[other]\nx = y:z\n\n[group]\n{line}\n[third]\nx = y:z\n"
    assert list(points(text, "group")) == ([expected] if expected else [])


def test_the_first_on_the_path_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for directory, target in (("one", "string:digits"), ("two", "string:punctuation")):
        info = tmp_path / directory / "thing-1.dist-info"
        info.mkdir(parents=True)
        (info / "entry_points.txt").write_text(f"[cvm_qmail.test]\nthing = {target}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "missing"), str(tmp_path / "one"), str(tmp_path / "two")])
    assert installed("cvm_qmail.test")["thing"]() == "0123456789"


def test_an_archive_on_the_path_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("thing-1.dist-info/METADATA", "Name: thing\nVersion: 1\n")
        made.writestr("thing-1.dist-info/entry_points.txt", "[cvm_qmail.test]\nthing = string:digits\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(archive)])
    assert installed("cvm_qmail.test")["thing"]() == "0123456789"


@pytest.mark.parametrize("point", ["not_there:x", "string:not_there"])
def test_a_plug_in_that_cannot_be_imported_is_named(host: Host, tmp_path: Path, point: str) -> None:
    (tmp_path / "thing-1.dist-info").mkdir()
    (tmp_path / "thing-1.dist-info/entry_points.txt").write_text(f"[cvm_qmail.programs]\nthing = {point}\n")
    done = run("cvm-local:/nowhere/socket", host=host, PYTHONPATH=str(tmp_path))
    assert done.returncode == 100
    assert f"cvm-qmail: plug-in thing ({point}): found " in done.stderr.decode()
    assert b"not_there" in done.stderr
    assert b"Traceback" not in done.stderr
