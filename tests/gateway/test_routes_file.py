"""The file of routes: what is wrong with it is reported once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cvm_qmail.gateway.routes_file import LIMIT, BadRoutes, RoutesFile

ROUTES = "example.org:cvm-local:/run/a\n"


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def too_large(path: Path) -> None:
    with path.open("w") as file:
        file.truncate(LIMIT + 1)


@pytest.mark.parametrize("spoil", [Path.unlink, a_directory, too_large, lambda path: path.write_text("x")])
def test_a_file_that_cannot_be_used_is_read_once(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    path = tmp_path / "routes"
    path.write_text(ROUTES)
    file = RoutesFile(str(path))
    assert file.read().of(b"example.org") == ("cvm-local:/run/a",)
    assert not file.changed()
    spoil(path)
    assert file.changed()
    with pytest.raises(BadRoutes):
        file.read()
    assert not file.changed()
    new = tmp_path / "new"
    new.write_text(ROUTES)
    if path.is_dir():
        path.rmdir()
    new.rename(path)
    assert file.changed()
    assert file.read().of(b"example.org") == ("cvm-local:/run/a",)
