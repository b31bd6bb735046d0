"""An answer rests on the files as they are when the request arrives.

Every kind of change is tried in three ways.  "At once": there and back, again and again, through the
real server, so that everything happens within the same tick of the file system's clock.  "When all is
quiet": the files have been as they are for so long, and were asked for so often, that whatever can be
kept in memory is.  In both the first request after the change has to see it.  "Quiet again": the
first request comes only when the change is old enough to be kept in memory as well.
"""

from __future__ import annotations

import gc
import mmap
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from changing import NO, TEMPORARY, YES, Worker, there_and_back, until_old
from hosts import (
    ALIAS_UID,
    NOFILES,
    QMAIL_ACCOUNTS,
    Host,
    assign_records,
    cdb_bytes,
    mounted,
    plain_host,
    temporary_directory,
)
from serving import AN_HOUR, Server, finish, request, serving, some, until

from cvm_qmail.qmail import qmail
from cvm_qmail.settings import Settings

pytestmark = pytest.mark.root

TURNS = 25

Step = Callable[[Host], object]


class Change(NamedTuple):
    """From one answer to another, and back."""

    address: str
    before: int
    after: int
    there: Step
    back: Step
    first: Step | None = None


# -- ways to change a file ----------------------------------------------------------------------------


def replaced(path: str, data: str | bytes, mode: int = 0o644, uid: int = 0) -> Step:
    """A new file takes the name."""

    def step(host: Host) -> None:
        host.file(path + ".new", data, mode=mode, uid=uid, gid=uid)
        os.rename(host.root / (path + ".new"), host.root / path)

    return step


def rewritten(path: str, data: str | bytes) -> Step:
    """Written in place; whoever compares size and whole seconds, or even mtime, notices nothing."""

    def step(host: Host) -> None:
        target = host.root / path
        st = target.stat()
        with target.open("r+b", buffering=0) as out:
            out.write(data.encode("latin-1") if isinstance(data, str) else data)
        os.utime(target, ns=(st.st_atime_ns, st.st_mtime_ns))
        assert target.stat().st_size == st.st_size

    return step


def mode(path: str, bits: int) -> Step:
    return lambda host: (host.root / path).chmod(bits)


def owner(path: str, uid: int) -> Step:
    return lambda host: os.chown(host.root / path, uid, uid)


def directory(path: str, uid: int = 0, bits: int = 0o755) -> Step:
    return lambda host: host.directory(path, mode=bits, uid=uid, gid=uid)


def written(path: str, data: str = "") -> Step:
    return lambda host: host.file(path, data)


def named_too(path: str, name: str) -> Step:
    """A second name for a file, in a directory of its own."""
    return steps(directory(os.path.dirname(name)), lambda host: os.link(host.root / path, host.root / name))


def moved(path: str, to: str) -> Step:
    return lambda host: os.rename(host.root / path, host.root / to)


def linked(path: str, to: str) -> Step:
    """A symbolic link takes the name."""

    def step(host: Host) -> None:
        os.symlink(host.root / to, host.root / (path + ".new"))
        os.rename(host.root / (path + ".new"), host.root / path)

    return step


def removed(path: str) -> Step:
    return lambda host: (host.root / path).unlink()


def copied(path: str, to: str) -> Step:
    return lambda host: shutil.copytree(host.root / path, host.root / to, symlinks=True)


def access(path: str, entry: str) -> Step:
    return lambda host: subprocess.run(["setfacl", "-m", entry, host.root / path], check=True)


def plain(path: str) -> Step:
    return lambda host: subprocess.run(["setfacl", "-b", host.root / path], check=True)


def steps(*parts: Step) -> Step:
    def step(host: Host) -> None:
        for part in parts:
            part(host)

    return step


def swapped(path: str, to: str) -> Step:
    """A whole tree takes the place of another."""
    return steps(moved(path, path + ".old"), moved(to, path), moved(path + ".old", to))


def cdb(home: str, extra: int = 0) -> Step:
    """Where users/cdb sends kim; `extra`: entries beside her, of 100 bytes."""

    def data(host: Host) -> bytes:
        lines = [f"=kim:kim:5003:5003:{host.root}/home/{home}:::"]
        lines += [f"=x{number:06}:x:5009:5009:/{'y' * 60}:::" for number in range(extra)]
        return cdb_bytes(assign_records(lines))

    return lambda host: replaced("users/cdb", data(host))(host)


def cdb_in_place(home: str) -> Step:
    def step(host: Host) -> None:
        path = host.root / "users/cdb"
        old = path.read_bytes()
        new = old.replace(b"/home/kim", b"/home/%s" % home.encode()).replace(b"/home/mik", b"/home/%s" % home.encode())
        rewritten("users/cdb", new)(host)

    return step


def passwd(*lines: str) -> Step:
    def step(host: Host) -> None:
        text = "".join(line.format(root=host.root) + "\n" for line in (*QMAIL_ACCOUNTS, *lines))
        replaced("passwd", text)(host)

    return step


def passwd_in_place(old: str, new: str) -> Step:
    def step(host: Host) -> None:
        rewritten("passwd", (host.root / "passwd").read_text().replace(old, new))(host)

    return step


def kim_of_the_cdb(host: Host) -> None:
    """kim has a home of her own and is in users/cdb only; mik's home has no right mode."""
    host.user("kim", 5003, ".qmail-foo")
    host.user("mik", 5003, mode=0o1755)
    cdb("kim")(host)


JOE, FOO = "home/joe", "home/joe/.qmail-foo"
JOE_LINE = "joe:x:5001:5001::{root}/home/joe:/bin/sh"


def second_root(host: Host) -> None:
    """Another tree beside the root, with another locals.  The password file stays where it is."""
    shutil.copytree(host.root / "control", host.root.with_name("two") / "control")
    (host.root.with_name("two") / "control/locals").write_text("example.net\n")
    shutil.copytree(host.root / "alias", host.root.with_name("two") / "alias")
    shutil.copy(host.root / "passwd", host.root.with_name("two") / "passwd")


def swap_roots(host: Host) -> None:
    one, two, aside = host.root, host.root.with_name("two"), host.root.with_name("aside")
    one.rename(aside)
    two.rename(one)
    aside.rename(two)


def joe_elsewhere(host: Host) -> None:
    """joe is in users/cdb, and his home is not below the root."""
    home = host.root.with_name("joe")
    host.directory(str(home), uid=5001, gid=5001)
    host.users(f"=joe:joe:5001:5001:{home}:::")


CHANGES = {
    # control files
    "locals replaced": Change(
        "joe@example.org",
        YES,
        NO,
        replaced("control/locals", "example.net\n"),
        replaced("control/locals", "example.org\n"),
    ),
    "locals rewritten": Change(
        "joe@example.org",
        YES,
        NO,
        rewritten("control/locals", "example.net\n"),
        rewritten("control/locals", "example.org\n"),
    ),
    "locals gone": Change(
        "joe@example.org", YES, NO, removed("control/locals"), replaced("control/locals", "example.org\n")
    ),
    "locals refused to qmails": Change(
        "joe@example.org", YES, TEMPORARY, mode("control/locals", 0o600), mode("control/locals", 0o644)
    ),
    "locals refused to qmails by an access list": Change(
        "joe@example.org", YES, TEMPORARY, access("control/locals", "u:5096:-"), plain("control/locals")
    ),
    "control refused to qmails": Change(
        "joe@example.org", YES, TEMPORARY, mode("control", 0o700), mode("control", 0o755)
    ),
    "the directory above control refused to qmails": Change(
        "joe@example.org",
        YES,
        TEMPORARY,
        mode("", 0o700),
        mode("", 0o755),
        joe_elsewhere,
    ),
    "locals by another name": Change(
        "joe@example.org",
        YES,
        NO,
        rewritten("other/name", "example.net\n"),
        rewritten("other/name", "example.org\n"),
        named_too("control/locals", "other/name"),
    ),
    "what a link named locals points to": Change(
        "joe@example.org",
        YES,
        NO,
        rewritten("other/name", "example.net\n"),
        rewritten("other/name", "example.org\n"),
        steps(directory("other"), written("other/name", "example.org\n"), linked("control/locals", "other/name")),
    ),
    "where a link named locals points": Change(
        "joe@example.org",
        YES,
        NO,
        linked("control/locals", "other/b"),
        linked("control/locals", "other/a"),
        steps(
            directory("other"),
            written("other/a", "example.org\n"),
            written("other/b", "x\n"),
            linked("control/locals", "other/a"),
        ),
    ),
    "a link named locals that dangles": Change(
        "joe@example.org",
        YES,
        NO,
        moved("other/a", "other/b"),
        moved("other/b", "other/a"),
        steps(directory("other"), written("other/a", "example.org\n"), linked("control/locals", "other/a")),
    ),
    "control swapped": Change(
        "joe@example.org",
        YES,
        NO,
        swapped("control", "control2"),
        swapped("control", "control2"),
        steps(copied("control", "control2"), written("control2/locals", "example.net\n")),
    ),
    "control a link that is moved": Change(
        "joe@example.org",
        YES,
        NO,
        linked("control", "two"),
        linked("control", "one"),
        steps(
            copied("control", "two"),
            written("two/locals", "example.net\n"),
            moved("control", "one"),
            linked("control", "one"),
        ),
    ),
    "the directory above control swapped": Change(
        "postmaster@example.org", YES, NO, swap_roots, swap_roots, second_root
    ),
    "me replaced": Change(
        "joe@mx.example.org",
        YES,
        NO,
        replaced("control/me", "mx.example.net\n"),
        replaced("control/me", "mx.example.org\n"),
        removed("control/locals"),
    ),
    "me gone": Change(
        "joe@mx.example.org",
        YES,
        TEMPORARY,
        removed("control/me"),
        replaced("control/me", "mx.example.org\n"),
        removed("control/locals"),
    ),
    "envnoathost rewritten": Change(
        "joe",
        YES,
        NO,
        rewritten("control/envnoathost", "example.net\n"),
        rewritten("control/envnoathost", "example.org\n"),
        replaced("control/envnoathost", "example.org\n"),
    ),
    "percenthack comes": Change(
        "joe%example.org@hack.example",
        NO,
        YES,
        replaced("control/percenthack", "hack.example\n"),
        removed("control/percenthack"),
    ),
    "virtualdomains rewritten": Change(
        "foo@v.example",
        YES,
        NO,
        rewritten("control/virtualdomains", "v.example:jox"),
        rewritten("control/virtualdomains", "v.example:joe"),
        replaced("control/virtualdomains", "v.example:joe"),
    ),
    "virtualdomains a directory": Change(
        "joe@example.org",
        YES,
        TEMPORARY,
        steps(moved("control/virtualdomains", "control/aside"), lambda host: host.directory("control/virtualdomains")),
        steps(
            lambda host: (host.root / "control/virtualdomains").rmdir(),
            moved("control/aside", "control/virtualdomains"),
        ),
    ),
    # users/cdb
    "cdb comes": Change(
        "kim@example.org", NO, YES, cdb("kim"), removed("users/cdb"), steps(kim_of_the_cdb, removed("users/cdb"))
    ),
    "cdb replaced": Change("kim@example.org", YES, TEMPORARY, cdb("mik"), cdb("kim"), kim_of_the_cdb),
    "cdb rewritten": Change(
        "kim@example.org", YES, TEMPORARY, cdb_in_place("mik"), cdb_in_place("kim"), kim_of_the_cdb
    ),
    "large cdb replaced": Change(
        "kim@example.org",
        YES,
        TEMPORARY,
        swapped("users/cdb", "users/two"),
        swapped("users/cdb", "users/two"),
        steps(kim_of_the_cdb, cdb("mik", 12000), moved("users/cdb", "users/two"), cdb("kim", 12000)),
    ),
    "large cdb rewritten": Change(
        "kim@example.org",
        YES,
        TEMPORARY,
        cdb_in_place("mik"),
        cdb_in_place("kim"),
        steps(kim_of_the_cdb, cdb("kim", 12000)),
    ),
    "cdb cut short": Change(
        "kim@example.org",
        YES,
        TEMPORARY,
        lambda host: os.truncate(host.root / "users/cdb", 100),
        cdb("kim"),
        kim_of_the_cdb,
    ),
    "users a link that is moved": Change(
        "kim@example.org",
        YES,
        NO,
        linked("users", "users2"),
        linked("users", "users1"),
        steps(kim_of_the_cdb, directory("users2"), moved("users", "users1"), linked("users", "users1")),
    ),
    "users gone": Change(
        "kim@example.org", YES, NO, moved("users", "users2"), moved("users2", "users"), kim_of_the_cdb
    ),
    # the password file
    "account gone": Change("joe@example.org", YES, NO, passwd(), passwd(JOE_LINE)),
    "account with another home": Change(
        "joe@example.org", YES, NO, passwd_in_place("/joe:", "/jox:"), passwd_in_place("/jox:", "/joe:")
    ),
    "account with another uid": Change(
        "joe@example.org", YES, NO, passwd_in_place(":5001:", ":5011:"), passwd_in_place(":5011:", ":5001:")
    ),
    "password file gone": Change(
        "joe@example.org", YES, TEMPORARY, moved("passwd", "passwd2"), moved("passwd2", "passwd")
    ),
    "qmailp with another uid": Change(
        "joe@example.org",
        YES,
        NO,
        passwd_in_place(":5093:", ":5094:"),
        passwd_in_place(":5094:", ":5093:"),
        steps(mode("home", 0o750), access("home", "u:5093:x,u:5001:x")),
    ),
    # homes
    "home sticky": Change("joe@example.org", YES, TEMPORARY, mode(JOE, 0o1755), mode(JOE, 0o755)),
    "home writable": Change("joe@example.org", YES, TEMPORARY, mode(JOE, 0o777), mode(JOE, 0o755)),
    "home closed to its user": Change("joe@example.org", YES, TEMPORARY, mode(JOE, 0o055), mode(JOE, 0o755)),
    "home of somebody else": Change("joe@example.org", YES, NO, owner(JOE, 5002), owner(JOE, 5001)),
    "home gone": Change("joe@example.org", YES, NO, moved(JOE, "home/jox"), moved("home/jox", JOE)),
    "home a link": Change(
        "joe@example.org",
        YES,
        TEMPORARY,
        steps(moved(JOE, "home/aside"), linked(JOE, "home/two")),
        steps(removed(JOE), moved("home/aside", JOE)),
        lambda host: host.user("two", 5001, mode=0o1755),
    ),
    "home a link that is moved": Change(
        "joe@example.org",
        YES,
        TEMPORARY,
        linked(JOE, "home/two"),
        linked(JOE, "home/one"),
        steps(lambda host: host.user("two", 5001, mode=0o1755), moved(JOE, "home/one"), linked(JOE, "home/one")),
    ),
    "homes swapped by their parent": Change(
        "joe@example.org",
        YES,
        TEMPORARY,
        swapped("home", "home2"),
        swapped("home", "home2"),
        steps(directory("home2"), directory("home2/joe", uid=5001, bits=0o1755)),
    ),
    "homes out of qmailp's sight": Change("joe@example.org", YES, NO, mode("home", 0o700), mode("home", 0o755)),
    "homes out of qmailp's sight by an access list": Change(
        "joe@example.org", YES, NO, access("home", "u:5093:-"), plain("home")
    ),
    "homes out of their user's reach": Change(
        "kim@example.org", YES, TEMPORARY, mode("home", 0o700), mode("home", 0o755), kim_of_the_cdb
    ),
    "home closed by an access list": Change(
        "kim@example.org",
        YES,
        TEMPORARY,
        access("home/kim", "u:5003:-"),
        plain("home/kim"),
        steps(kim_of_the_cdb, owner("home/kim", 0)),
    ),
    # .qmail files
    "file comes": Change(
        "joe-new@example.org", NO, YES, replaced("home/joe/.qmail-new", ""), removed("home/joe/.qmail-new")
    ),
    "file goes": Change("joe-foo@example.org", YES, NO, moved(FOO, "home/joe/aside"), moved("home/joe/aside", FOO)),
    "default comes": Change(
        "joe-x-y@example.org", NO, YES, replaced("home/joe/.qmail-x-default", ""), removed("home/joe/.qmail-x-default")
    ),
    "file writable": Change("joe-foo@example.org", YES, TEMPORARY, mode(FOO, 0o646), mode(FOO, 0o644)),
    "file unreadable": Change("joe-foo@example.org", YES, TEMPORARY, mode(FOO, 0o244), mode(FOO, 0o644)),
    "file of somebody else": Change(
        "joe-foo@example.org", YES, TEMPORARY, owner(FOO, 0), owner(FOO, 5001), mode(FOO, 0o600)
    ),
    "file unreadable by an access list": Change(
        "joe-foo@example.org", YES, TEMPORARY, access(FOO, "u:5001:-"), plain(FOO), owner(FOO, 0)
    ),
    "file rewritten with a blank first line": Change(
        "joe-foo@example.org",
        YES,
        TEMPORARY,
        rewritten(FOO, "\n./x"),
        rewritten(FOO, "./x\n"),
        replaced(FOO, "./x\n", uid=5001),
    ),
    "file replaced with a blank first line": Change(
        "joe-foo@example.org", YES, TEMPORARY, replaced(FOO, "\n./x", uid=5001), replaced(FOO, "./x\n", uid=5001)
    ),
    "file by another name with a blank first line": Change(
        "joe-foo@example.org",
        YES,
        TEMPORARY,
        rewritten("other/name", "\n./x"),
        rewritten("other/name", "./x\n"),
        steps(written(FOO, "./x\n"), named_too(FOO, "other/name")),
    ),
    "file by another name writable": Change(
        "joe-foo@example.org",
        YES,
        TEMPORARY,
        mode("other/name", 0o666),
        mode("other/name", 0o644),
        named_too(FOO, "other/name"),
    ),
    "what a link named .qmail points to": Change(
        "joe-foo@example.org",
        YES,
        TEMPORARY,
        mode("other/name", 0o666),
        mode("other/name", 0o644),
        steps(directory("other"), written("other/name", ""), linked(FOO, "other/name")),
    ),
    "a link named .qmail that dangles": Change(
        "joe-foo@example.org",
        YES,
        NO,
        moved("other/a", "other/b"),
        moved("other/b", "other/a"),
        steps(directory("other"), written("other/a", ""), linked(FOO, "other/a")),
    ),
    "file that becomes a directory": Change(
        "joe-foo@example.org",
        YES,
        NO,
        steps(removed(FOO), lambda host: host.directory(FOO)),
        steps(lambda host: (host.root / FOO).rmdir(), replaced(FOO, "", uid=5001)),
    ),
    "file in a directory that closes": Change(
        "joe-d/e@example.org",
        YES,
        TEMPORARY,
        mode("home/joe/.qmail-d", 0o600),
        mode("home/joe/.qmail-d", 0o755),
        steps(directory("home/joe/.qmail-d", uid=5001), written("home/joe/.qmail-d/e", "")),
    ),
    "file in a directory goes": Change(
        "joe-d/e@example.org",
        YES,
        NO,
        moved("home/joe/.qmail-d/e", "home/joe/e"),
        moved("home/joe/e", "home/joe/.qmail-d/e"),
        steps(directory("home/joe/.qmail-d", uid=5001), written("home/joe/.qmail-d/e", "")),
    ),
    "alias's file goes": Change(
        "postmaster@example.org",
        YES,
        NO,
        removed("alias/.qmail-postmaster"),
        lambda host: host.file("alias/.qmail-postmaster", uid=ALIAS_UID, gid=NOFILES),
    ),
    "the bare user's file becomes blank": Change(
        "joe@example.org", YES, TEMPORARY, replaced("home/joe/.qmail", "\n", uid=5001), removed("home/joe/.qmail")
    ),
}


def prepared(directory: Path, change: Change) -> Host:
    (directory / "root").mkdir()
    host = plain_host(directory / "root")
    if change.first is not None:
        change.first(host)
    return host


# -- at once ------------------------------------------------------------------------------------------


def code(server: Server, address: str) -> int:
    account, at, domain = address.partition("@")
    return server.ask(account, domain if at else None).code


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.peer("setfacl")
def test_at_once(name: str) -> None:
    """What a worker says."""
    with temporary_directory() as directory:
        host = prepared(directory, CHANGES[name])
        there_and_back(host, CHANGES[name], worker(host).says, TURNS)
    gc.collect()  # a user may have no more than some hundred watches


@pytest.mark.parametrize("name", some(list(CHANGES), 4))
@pytest.mark.peer("setfacl")
def test_at_once_through_a_server(name: str) -> None:
    """Some changes; CORPUS=whole: all."""
    with temporary_directory() as directory:
        host = prepared(directory, CHANGES[name])
        with serving(host, CVM_WORKERS="1") as server:
            there_and_back(host, CHANGES[name], partial(code, server), TURNS)


# -- when all is quiet --------------------------------------------------------------------------------


class World(NamedTuple):
    """A host, and a worker that looks at it."""

    host: Host
    worker: Worker


def worker(host: Host) -> Worker:
    """A worker of cvm-qmail without plug-ins."""
    return Worker(Settings.from_environment(host.environment), lambda tables, settings: qmail(tables, settings, []))


@contextmanager
def worlds() -> Iterator[dict[str, World]]:
    """A host for each change, all of them old enough to be remembered."""
    with temporary_directory() as directory:
        made = {}
        for number, (name, change) in enumerate(CHANGES.items()):
            place = directory / str(number)
            place.mkdir()
            host = prepared(place, change)
            made[name] = World(host, worker(host))
        until_old(host for host, _ in made.values())
        yield made
        made.clear()
        gc.collect()  # each watches for changes, and a user may have no more than some hundred such watches


def say_often(world: World, change: Change, code: int) -> None:
    assert world.worker.says_often(change.address) == {code}


def happen(world: World, change: Change) -> None:
    """The change, to somebody who has been asked so often that all is remembered that can be."""
    say_often(world, change, change.before)
    change.there(world.host)


class Quiet(NamedTuple):
    """Where nothing has happened for a while."""

    worlds: dict[str, World]
    changed: bool
    """Whether the changes came before that while, and nobody has asked since."""


@pytest.fixture(scope="module", params=[False, True], ids=["until now", "again"])
def quiet(request: pytest.FixtureRequest) -> Iterator[Quiet]:
    with worlds() as made:
        if request.param:
            for name, change in CHANGES.items():
                happen(made[name], change)
            until_old(host for host, _ in made.values())
        yield Quiet(made, request.param)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.peer("setfacl")
def test_when_all_is_quiet(name: str, quiet: Quiet) -> None:
    if not quiet.changed:
        happen(quiet.worlds[name], CHANGES[name])
    say_often(quiet.worlds[name], CHANGES[name], CHANGES[name].after)


# -- what a kernel does not report -------------------------------------------------------------------


def test_a_store_through_mmap_is_seen_soon(host: Host) -> None:
    with serving(host, CVM_WORKERS="1") as server, (host.root / "control/locals").open("r+b") as file:
        assert {server.ask("joe").code for _ in range(10)} == {YES}
        with mmap.mmap(file.fileno(), 0) as memory:
            memory[:] = b"example.net\n"
            memory.flush()
        until(lambda: server.ask("joe").code == NO, "the change is seen")


def test_a_mount_over_a_control_file_is_seen(host: Host) -> None:
    locals_, other = host.root / "control/locals", host.file("other", "example.net\n")
    with serving(host, CVM_WORKERS="1") as server:
        assert {server.ask("joe").code for _ in range(10)} == {YES}
        with mounted(other, locals_):
            assert server.ask("joe").code == NO
        assert server.ask("joe").code == YES


def test_changes_that_many_workers_were_asked_about_are_seen_by_each(host: Host) -> None:
    with serving(host, CVM_WORKERS="4") as server:
        for turn in range(100):
            name = ("example.net\n", "example.org\n")[turn % 2]
            rewritten("control/locals", name)(host)
            assert {server.ask("joe").code for _ in range(8)} == {(NO, YES)[turn % 2]}


def test_a_change_is_seen_by_a_request_that_was_begun_before_it(host: Host) -> None:
    with serving(host, CVM_WORKERS="1", CVM_LOCAL_TIMEOUT=AN_HOUR) as server:
        connection = server.connect()
        connection.sendall(request("joe")[:6])
        assert server.ask("joe").code == YES
        replaced("control/locals", "example.net\n")(host)
        assert finish(connection, request("joe")[6:])[0] == NO
