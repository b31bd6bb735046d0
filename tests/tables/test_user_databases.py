"""A user's database is read without becoming that user again, only while nothing on the way has changed."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hosts import Host, cdb_bytes, temporary_directory
from serving import until

from cvm_qmail.answer import Unavailable
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables
from cvm_qmail.tables.identity import SETTLED
from cvm_qmail.tables.rights import Rights

pytestmark = pytest.mark.root

JOE = Rights(5001, 5001)
ONE, OTHER = cdb_bytes([(b"k", b"one")]), cdb_bytes([(b"k", b"two")])


class World:
    """A home with a database in it, and a process that reads it as joe."""

    def __init__(self, root: Path) -> None:
        host = Host(root)
        self.home = host.directory("joe", mode=0o700, uid=5001, gid=5001)
        host.directory("joe/in", mode=0o700, uid=5001, gid=5001)
        host.directory("out")
        self.paths = {"home": "joe/t.cdb", "below": "joe/in/t.cdb", "outside": "out/t.cdb", "closed": "shut/t.cdb"}
        host.directory("shut", mode=0o700)
        for path in self.paths.values():
            host.file(path, ONE, mode=0o600 if path.startswith("joe") else 0o644, uid=5001, gid=5001)
        self.root = root
        self.tables = Tables(Settings.from_environment({"QMAIL_ROOT": str(root)}))
        self.became = 0
        as_user = self.tables.as_user

        def counted(rights: Rights, home: bytes, function: Callable[..., object]) -> object:
            self.became += 1
            return as_user(rights, home, function)

        self.tables.as_user = counted

    def path(self, where: str) -> Path:
        return self.root / self.paths[where]

    def says(self, where: str) -> bytes | None:
        """What the database says, in a request of its own."""
        self.tables.request(cacheable=False)
        self.tables.home(bytes(self.home), JOE)
        table = self.tables.user_cdb(JOE, bytes(self.home), bytes(self.path(where)))
        return None if table is None else table.get(b"k")

    def remembers(self, where: str) -> bool:
        before = self.became
        self.says(where)
        return self.became == before


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with temporary_directory() as root:
        made = World(root)
        until(lambda: all(_newest(made.path(p)) < time.time_ns() - SETTLED for p in made.paths), "it is old")
        yield made


def _newest(path: Path) -> int:
    return max(os.lstat(part).st_ctime_ns for part in (path, path.parent))


@pytest.mark.parametrize("where", ["home", "below", "outside"])
def test_the_second_time_nobody_becomes_the_user(world: World, where: str) -> None:
    assert world.says(where) == b"one"
    assert world.remembers(where)
    assert world.says(where) == b"one"


def test_what_the_user_may_not_reach_is_never_remembered(world: World) -> None:
    for _ in range(3):
        with pytest.raises(Unavailable):
            world.says("closed")


def test_what_is_missing_is_not_remembered(world: World) -> None:
    world.paths["new"] = "joe/in/new.cdb"
    assert world.says("new") is None
    world.path("new").write_bytes(ONE)
    os.chown(world.path("new"), 5001, 5001)
    assert world.says("new") == b"one"


def test_a_path_with_a_detour_is_read_and_not_remembered(world: World) -> None:
    world.paths["detour"] = "joe/in/../t.cdb"
    assert world.says("detour") == b"one"
    assert not world.remembers("detour")


CHANGES: dict[str, tuple[Callable[[Path], object], bytes | str | None]] = {
    "replaced": (
        lambda path: path.with_suffix(".new").write_bytes(OTHER) and path.with_suffix(".new").rename(path),
        b"two",
    ),
    "rewritten": (lambda path: path.write_bytes(OTHER), b"two"),
    "gone": (lambda path: path.unlink(), None),
    "closed": (lambda path: path.chmod(0), "refused"),
    "given away": (lambda path: os.chown(path, 0, 0) or path.chmod(0o600), "refused"),
    "cut": (lambda path: os.truncate(path, 100), "damaged"),
    "way closed": (lambda path: path.parent.chmod(0o600), "refused"),
    "way gone": (lambda path: path.parent.rename(path.parent.with_name("gone")), None),
    "linked": (lambda path: path.rename(path.with_name("x")) and path.symlink_to("x"), b"one"),
    "list": (lambda path: subprocess.run(["setfacl", "-m", "u:5001:-", path.parent], check=True), "refused"),
}


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[str, World]]:
    """One for each change, all of them old."""
    with ExitStack() as stack:
        made = {name: World(stack.enter_context(temporary_directory())) for name in CHANGES}
        for world in made.values():
            os.chown(world.path("below").parent, 0, 0)
            world.path("below").parent.chmod(0o755)
        until(
            lambda: all(_newest(world.path("below")) < time.time_ns() - SETTLED for world in made.values()),
            "they are old",
        )
        yield made


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.peer("setfacl")
def test_a_change_on_the_way_is_seen(worlds: dict[str, World], name: str) -> None:
    change, expected = CHANGES[name]
    world = worlds[name]
    world.says("below")
    assert world.remembers("below")
    change(world.path("below"))
    os.chown(world.path("below"), 5001, 5001) if expected == b"two" else None
    for _ in range(2):
        if isinstance(expected, str):
            with pytest.raises(Unavailable):
                world.says("below")
        else:
            assert world.says("below") == expected
