"""An answer about a program rests on its tables and files as they are when the request arrives.

Each change is made there and back: to somebody who has never heard of the address, and to somebody who
was asked so often, of files that are so old, that the answer is cached where it may be.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from changing import NO, TEMPORARY, YES, Worker, there_and_back, until_old
from hosts import Host, cdb_bytes, plain_host, temporary_directory
from phosts import table
from programs.test_vmailmgr import record
from serving import serving

from cvm_qmail.qmail import qmail
from cvm_qmail.settings import Settings

pytestmark = pytest.mark.root

JOE = 5001
TURNS = 4

A = b"&b@far.example\0"
HAS, HAS_NOT = table({b":a@example.org": A}), table({b":b@example.org": A})
LISTED = table({b":a@example.org": b"./lists/l.bin\0"})

Step = Callable[[Host], object]


def replaced(path: str, content: bytes, *, mode: int = 0o644) -> Step:
    """Written beside, and renamed."""

    def step(host: Host) -> None:
        host.file(f"home/joe/{path}.new", content, mode=mode, uid=JOE, gid=JOE).rename(host.root / "home/joe" / path)

    return step


def in_place(path: str, content: bytes) -> Step:
    """Written in place, its mtime set back."""

    def step(host: Host) -> None:
        target = host.root / "home/joe" / path
        st = target.stat()
        with target.open("r+b", buffering=0) as file:
            file.write(content)
            file.truncate()
        os.utime(target, ns=(st.st_atime_ns, st.st_mtime_ns))

    return step


def gone(path: str) -> Step:
    return lambda host: (host.root / "home/joe" / path).unlink()


def mode(path: str, bits: int) -> Step:
    return lambda host: (host.root / "home/joe" / path).chmod(bits)


def linked(path: str, target: str) -> Step:
    def step(host: Host) -> None:
        link = host.root / "home/joe" / path
        link.unlink(missing_ok=True)
        link.symlink_to(target)

    return step


def access(path: str, *entry: str) -> Step:
    return lambda host: subprocess.run(["setfacl", *entry, host.root / "home/joe" / path], check=True)


def lines(text: str) -> Step:
    return replaced(".qmail-default", text.encode())


class Change(NamedTuple):
    """From one answer to another, and back."""

    before: int
    after: int
    there: Step
    back: Step
    lines: str = "|fastforward -d t.cdb\n"
    cached: bool = True
    """Whether the answer before it may be cached."""
    address: str = "joe-a@example.org"


VDELIVER = "|vdeliver\n"
USER, NO_USER = cdb_bytes([(b"a", record())]), cdb_bytes([(b"b", record())])

DOT_FORWARD = "|dot-forward .forward\n|exit 100\n"

CHANGES = {
    "table replaced": Change(YES, NO, replaced("t.cdb", HAS_NOT), replaced("t.cdb", HAS)),
    "table written in place": Change(YES, NO, in_place("t.cdb", HAS_NOT), in_place("t.cdb", HAS)),
    "table cut short in place": Change(YES, TEMPORARY, in_place("t.cdb", HAS[:1000]), in_place("t.cdb", HAS)),
    "table emptied": Change(YES, TEMPORARY, in_place("t.cdb", b""), in_place("t.cdb", HAS)),
    "table gone": Change(YES, TEMPORARY, gone("t.cdb"), replaced("t.cdb", HAS)),
    "table comes": Change(
        TEMPORARY, YES, replaced("u.cdb", HAS), gone("u.cdb"), lines="|fastforward -d u.cdb\n", cached=False
    ),
    "table closed": Change(YES, TEMPORARY, mode("t.cdb", 0), mode("t.cdb", 0o600)),
    "table closed by an access list": Change(
        YES, TEMPORARY,
        access("lists/t.cdb", "-m", f"u:{JOE}:-"), access("lists/t.cdb", "-b"), lines="|fastforward -d lists/t.cdb\n",
    ),
    "directory of the table closed": Change(
        YES, TEMPORARY, mode("lists", 0o600), mode("lists", 0o700), lines="|fastforward -d lists/t.cdb\n"
    ),
    "table a link to another": Change(
        YES, NO, linked("ln.cdb", "no.cdb"), linked("ln.cdb", "t.cdb"), lines="|fastforward -d ln.cdb\n", cached=False
    ),
    "target of a link replaced": Change(
        YES, NO, replaced("t.cdb", HAS_NOT), replaced("t.cdb", HAS), lines="|fastforward -d ln.cdb\n", cached=False
    ),
    "table outside of the home": Change(
        YES, NO,
        lambda host: host.file("etc.cdb", HAS_NOT), lambda host: host.file("etc.cdb", HAS),
        lines="|fastforward -d {root}/etc.cdb\n",
    ),
    "list gone": Change(
        YES, TEMPORARY,
        gone("lists/l.bin"), replaced("lists/l.bin", b"&a@x\0"), lines="|fastforward -d lists.cdb\n",
    ),
    "list not public": Change(
        YES, TEMPORARY, mode("lists/l.bin", 0o640), mode("lists/l.bin", 0o644), lines="|fastforward -d lists.cdb\n"
    ),
    ".forward comes": Change(NO, YES, replaced(".forward", b"a@x\n"), gone(".forward"), lines=DOT_FORWARD),
    ".forward changes": Change(
        YES, NO, replaced("f", b"joe\n"), replaced("f", b"ann\n"), lines="|dot-forward f\n|exit 100\n"
    ),
    "vmailmgr's table replaced": Change(
        YES, NO, replaced("passwd.cdb", NO_USER), replaced("passwd.cdb", USER), lines=VDELIVER
    ),
    "vmailmgr's table written in place": Change(
        YES, NO, in_place("passwd.cdb", NO_USER), in_place("passwd.cdb", USER), lines=VDELIVER
    ),
    "vmailmgr's table cut short in place": Change(
        YES, TEMPORARY, in_place("passwd.cdb", USER[:1000]), in_place("passwd.cdb", USER), lines=VDELIVER
    ),
    "vmailmgr's table gone": Change(
        YES, TEMPORARY, gone("passwd.cdb"), replaced("passwd.cdb", USER), lines=VDELIVER
    ),
    "vmailmgr's table closed": Change(
        YES, TEMPORARY, mode("passwd.cdb", 0), mode("passwd.cdb", 0o600), lines=VDELIVER
    ),
    "vmailmgr's setting names another table": Change(
        YES, NO,
        replaced(".vmailmgr/password-file", b"other\n"), gone(".vmailmgr/password-file"), lines=VDELIVER,
    ),
    "maildir of a virtual user without tmp": Change(
        YES, TEMPORARY,
        lambda host: (host.root / "home/joe/users/joe/tmp").rmdir(),
        lambda host: host.directory("home/joe/users/joe/tmp", mode=0o700, uid=JOE, gid=JOE),
        lines=VDELIVER,
    ),
    "lines change": Change(YES, NO, lines("|bouncesaying no\n"), lines("|fastforward -d t.cdb\n")),
    "program elsewhere comes": Change(
        TEMPORARY, YES,
        replaced("except", b"", mode=0o755), gone("except"), lines="|./except true\n", cached=False,
    ),
}  # fmt: skip


def prepared(root: Path, change: Change) -> Host:
    root.mkdir(exist_ok=True)
    host = plain_host(root)
    host.directory("home/joe/lists", mode=0o700, uid=JOE, gid=JOE)
    tables = {"t.cdb": HAS, "lists/t.cdb": HAS, "no.cdb": HAS_NOT, "lists.cdb": LISTED, "lists/l.bin": b"&a@x\0"}
    for name, content in tables.items():
        host.file(f"home/joe/{name}", content, uid=0 if name == "lists/t.cdb" else JOE, gid=JOE)
    for name, content in (("passwd.cdb", USER), ("other.cdb", NO_USER)):
        host.file(f"home/joe/{name}", content, uid=JOE, gid=JOE)
    for name in (".vmailmgr", "users", "users/joe", *(f"users/joe/{part}" for part in ("cur", "new", "tmp"))):
        host.directory(f"home/joe/{name}", mode=0o700, uid=JOE, gid=JOE)
    host.file("home/joe/f", b"ann\n", uid=JOE, gid=JOE)
    host.file("etc.cdb", HAS)
    linked("ln.cdb", "t.cdb")(host)
    lines(change.lines.format(root=root))(host)
    return host


class World(NamedTuple):
    """A host, and a worker that looks at it."""

    host: Host
    worker: Worker


def world(root: Path, change: Change) -> World:
    host = prepared(root, change)
    return World(host, Worker(Settings.from_environment(host.environment), qmail))


@pytest.mark.peer("setfacl")
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen_at_once(name: str) -> None:
    change = CHANGES[name]
    with temporary_directory() as directory:
        host, worker = world(directory / "root", change)
        there_and_back(host, change, worker.says, TURNS)


@pytest.fixture(scope="module")
def quiet() -> Iterator[dict[str, World]]:
    """A world for each change, in which nothing has happened for a while."""
    with temporary_directory() as place:
        made = {name: world(place / str(number), change) for number, (name, change) in enumerate(CHANGES.items())}
        until_old(host for host, _ in made.values())
        yield made
        made.clear()


@pytest.mark.peer("setfacl")
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen_by_who_has_cached_the_answer(name: str, quiet: dict[str, World]) -> None:
    (host, worker), change = quiet[name], CHANGES[name]
    assert worker.says_often(change.address) == {change.before}
    assert worker.remembers(change.address) == change.cached
    change.there(host)
    assert worker.says_often(change.address) == {change.after}


# -- what a user makes of his files -------------------------------------------------------------------


def a_fifo(path: Path) -> None:
    os.mkfifo(path, 0o666)


def a_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_directory(path: Path) -> None:
    path.mkdir()


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sixteen_gigabytes(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 34)


def nonsense(path: Path) -> None:
    path.write_bytes(b"\xff" * 1_000_000)


SPOILED = [
    ("t.cdb", a_fifo, TEMPORARY),
    ("t.cdb", a_loop, TEMPORARY),
    ("t.cdb", make_directory, TEMPORARY),
    ("t.cdb", a_device, TEMPORARY),
    ("t.cdb", sixteen_gigabytes, NO),  # as fastforward: an empty table
    ("t.cdb", nonsense, TEMPORARY),
    ("passwd.cdb", a_fifo, TEMPORARY),
    ("passwd.cdb", a_loop, TEMPORARY),
    ("passwd.cdb", make_directory, TEMPORARY),
    ("passwd.cdb", a_device, TEMPORARY),
    ("passwd.cdb", sixteen_gigabytes, NO),  # as vdeliver: an empty table
    ("passwd.cdb", nonsense, TEMPORARY),
    ("lists/l.bin", a_fifo, YES),
    ("lists/l.bin", a_loop, TEMPORARY),
    ("lists/l.bin", make_directory, TEMPORARY),
    ("lists/l.bin", a_device, YES),
    ("lists/l.bin", sixteen_gigabytes, TEMPORARY),
    (".forward", a_fifo, YES),
    (".forward", a_loop, TEMPORARY),
    (".forward", make_directory, TEMPORARY),
    (".forward", a_device, YES),
    (".forward", sixteen_gigabytes, TEMPORARY),
]


@pytest.mark.parametrize(("path", "spoil", "expected"), SPOILED, ids=lambda v: getattr(v, "__name__", str(v)))
def test_nothing_that_a_user_makes_of_a_file_hangs_anybody(
    path: str, spoil: Callable[[Path], None], expected: int
) -> None:
    text = {
        "t.cdb": "|fastforward -d t.cdb\n",
        "passwd.cdb": VDELIVER,
        "lists/l.bin": "|fastforward -d lists.cdb\n",
        ".forward": DOT_FORWARD,
    }
    with temporary_directory() as directory:
        host = prepared(directory, CHANGES["table replaced"])
        lines(text[path])(host)
        target = host.root / "home/joe" / path
        target.unlink(missing_ok=True)
        spoil(target)
        if not target.is_symlink():
            os.chown(target, JOE, JOE)
        with serving(host, CVM_WORKERS="1") as server:
            assert {server.ask("joe-a").code for _ in range(3)} == {expected}
            assert server.ask("ann-x").code == YES
            assert "internal-error" not in server.log.read_text()
            assert "deadline" not in server.log.read_text()


LONG = table({b":a@example.org": b"&0@x\0", **{b":%d@x" % n: b"&%d@x\0" % (n + 1) for n in range(10_000)}})
WIDE = table({b":a@example.org": b"".join(b"&%d@x\0" % n for n in range(100_000))})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"|true\n" * 1_000_000, YES),
        (b"|true\n" * 50_000 + b"|exit 100\n", NO),
        (b"&x@far.example\n" * 1_000_000 + b"|exit 100\n", NO),
        (b"#\n" * 1_000_000, YES),
        (b"".join(b"|exit %d\n" % (256 * n) for n in range(100_000)), YES),
        (b"|bouncesaying '" + b"x" * 1_000_000 + b"'\n", YES),
        (b"x" * 1_000_000 + b"\n|exit 100\n", NO),
        (b"|" + b'"\\' * 4000 + b"\n", YES),
        (b"|" + b"except " * 1000 + b"true\n", YES),
        (b"|fastforward -d long.cdb\n", YES),
        (b"|fastforward -d wide.cdb\n", YES),
        (b"|fastforward -d long.cdb\n|fastforward -d ./long.cdb\n" * 1000, YES),
        (b"".join(b"|fastforward -d t.cdb %d\n" % n for n in range(100_000)), YES),
        (b"|dot-forward big\n", YES),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else str(value),
)
def test_a_hostile_qmail_file_costs_others_nothing(text: bytes, expected: int) -> None:
    with temporary_directory() as directory:
        host = prepared(directory, CHANGES["table replaced"])
        for name, content in {"long.cdb": LONG, "wide.cdb": WIDE, "big": b"ann@x\n" * 1_000_000}.items():
            host.file(f"home/joe/{name}", content, uid=JOE, gid=JOE)
        replaced(".qmail-default", text)(host)
        with serving(host, CVM_WORKERS="1") as server:
            assert server.ask("joe-a").code == expected
            assert server.ask("ann-x").code == YES
            assert "deadline" not in server.log.read_text()


def test_a_table_that_is_always_being_replaced_is_one_or_the_other() -> None:
    with temporary_directory() as directory:
        host = prepared(directory, CHANGES["table replaced"])
        both = table({b":a@example.org": A, b":c@example.org": A}), HAS
        with serving(host, CVM_WORKERS="2") as server:
            for turn in range(100):
                replaced("t.cdb", both[turn % 2])(host)
                assert server.ask("joe-a").code == YES
                assert server.ask("joe-c").code == (NO if turn % 2 else YES)


def test_an_unreadable_table_of_one_user_is_a_temporary_failure_of_his_alone() -> None:
    with temporary_directory() as directory:
        host = prepared(directory, CHANGES["table replaced"])
        host.file("home/ann/.qmail-default", f"|fastforward -d {host.root}/home/joe/lists/t.cdb\n")
        shutil.copy(host.root / "home/joe/t.cdb", host.root / "home/joe/lists/t.cdb")
        with serving(host, CVM_WORKERS="1") as server:
            assert server.ask("ann-a").code == TEMPORARY
            assert server.ask("joe-a").code == YES
            assert server.logged("? ann-a").split()[3] == "cdb-unreadable"
