"""Looking at much of a user's files at once: with exactly that user's rights, and with dependencies for the answer."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from changing import until_old
from hosts import Host, cdb_bytes, mounted, plain_host, temporary_directory

from cvm_qmail.answer import Unavailable
from cvm_qmail.settings import Settings
from cvm_qmail.tables.dependencies import Dependencies
from cvm_qmail.tables.door import FileAccess, Rights, Tables
from cvm_qmail.tables.file_access import ModeBitAccess, SetfsuidAccess

pytestmark = pytest.mark.root

JOE, ANN = Rights(5001, 5001), Rights(5002, 5002)
ROOT = Rights(0, 0)


@pytest.fixture
def tables(host: Host) -> Tables:
    """Of a host on which a request begins."""
    made = Tables(Settings.from_environment(host.environment))
    made.request()
    return made


def home(host: Host) -> bytes:
    return os.fsencode(host.root / "home/joe")


def as_joe(host: Host, tables: Tables, function: Callable[[FileAccess], object], rights: Rights = JOE) -> object:
    """What the function says; the errno of its error, as text, if it cannot."""
    try:
        return tables.as_user(rights, home(host), function)
    except Unavailable as error:
        return "?" if error.errno is None else f"?{os.strerror(error.errno)}"


def file_access() -> tuple[int, int]:
    """This thread's fsuid and fsgid."""
    status = Path("/proc/thread-self/status").read_text()
    uids, gids = (next(line for line in status.splitlines() if line.startswith(name)) for name in ("Uid:", "Gid:"))
    return int(uids.split()[4]), int(gids.split()[4])


# -- whose rights -------------------------------------------------------------------------------------


def test_meanwhile_the_file_access_is_the_user_s_and_afterwards_the_process_s_own(host: Host, tables: Tables) -> None:
    assert tables.as_user(JOE, home(host), lambda _: file_access()) == JOE
    assert file_access() == ROOT


@pytest.mark.parametrize("what", [Unavailable("x"), RuntimeError("x"), KeyboardInterrupt(), OSError(5, "x")])
def test_it_is_its_own_again_however_the_function_ends(host: Host, tables: Tables, what: BaseException) -> None:
    def fails(_: FileAccess) -> None:
        raise what

    with pytest.raises(type(what)):
        tables.as_user(JOE, home(host), fails)
    assert file_access() == ROOT
    assert tables.file(os.fsencode(host.file("secret", b"x", mode=0o600))) == b"x"


def test_one_look_within_another_has_its_own_rights(host: Host, tables: Tables) -> None:
    seen: list[tuple[int, int]] = []

    def outer(_: FileAccess) -> None:
        seen.append(file_access())
        tables.as_user(ANN, os.fsencode(host.root / "home/ann"), lambda _: seen.append(file_access()))
        seen.append(file_access())
        tables.as_self(lambda: seen.append(file_access()))
        seen.append(file_access())
        with pytest.raises(RuntimeError):
            tables.as_self(fails)
        seen.append(file_access())

    def fails() -> None:
        raise RuntimeError("x")

    tables.as_user(JOE, home(host), outer)
    assert seen == [JOE, ANN, JOE, ROOT, JOE, JOE]
    assert file_access() == ROOT


def test_as_self_outside_of_a_look_changes_nothing(tables: Tables) -> None:
    assert tables.as_self(file_access) == ROOT


def test_as_self_sees_what_the_user_may_not(host: Host, tables: Tables) -> None:
    path = os.fsencode(host.file("secret", b"x", mode=0o600))
    assert as_joe(host, tables, lambda looks: looks.file(path)) == "?Permission denied"
    assert as_joe(host, tables, lambda _: tables.as_self(lambda: tables.file(path))) == b"x"


def test_the_doors_of_tables_look_with_the_rights_that_they_are_given_meanwhile_too(host: Host, tables: Tables) -> None:
    path = os.fsencode(host.file("home/ann/private", b"x", mode=0o600, uid=5002, gid=5002))
    assert as_joe(host, tables, lambda _: tables.file(path, ANN)) == b"x"
    assert as_joe(host, tables, lambda _: tables.file(path, JOE)) == "?Permission denied"


def test_ids_that_the_kernel_does_not_know_determine_nothing(host: Host, tables: Tables) -> None:
    with pytest.raises(Unavailable, match="bad-id"):
        tables.as_user(Rights(0xFFFFFFFF, 5001), home(host), lambda looks: looks.exact)
    assert file_access() == ROOT


# -- what is seen -------------------------------------------------------------------------------------


def answers(looks: FileAccess, path: bytes) -> list[object]:
    """All five questions; an error is its error."""
    said: list[object] = []
    for question in (looks.file, looks.status, looks.listing, looks.enters, looks.writable):
        try:
            answer = question(path)
        except Unavailable as error:
            answer = "?" if error.errno is None else f"?{os.strerror(error.errno)}"
        said.append(answer if answer is None or isinstance(answer, str | bytes | bool) else True)
    return said


DENIED = "?Permission denied"


def ask(host: Host, tables: Tables, path: str) -> Any:
    return as_joe(host, tables, lambda looks: answers(looks, os.fsencode(host.root / path)))


def test_files_directories_and_what_is_missing(host: Host, tables: Tables) -> None:
    host.file("home/joe/data", b"\0\xff", mode=0o400, uid=5001, gid=5001)
    assert ask(host, tables, "home/joe/data") == [b"\0\xff", True, None, False, False]
    assert ask(host, tables, "home/joe") == ["?Invalid argument", True, True, True, True]
    assert ask(host, tables, "home/joe/no") == [None, None, None, False, None]
    assert ask(host, tables, "home/joe/data/x") == [None, None, None, False, None]


def test_what_the_user_is_refused(host: Host, tables: Tables) -> None:
    host.directory("home/joe/closed", mode=0o700, uid=5002)
    host.file("home/joe/closed/file")
    assert ask(host, tables, "home/joe/closed") == [DENIED, True, DENIED, DENIED, False]
    assert ask(host, tables, "home/joe/closed/file") == [DENIED] * 5


def test_a_directory_that_may_be_searched_and_not_listed(host: Host, tables: Tables) -> None:
    host.directory("way", mode=0o711)
    host.file("way/in", b"x")
    assert ask(host, tables, "way")[2:] == [DENIED, True, False]
    assert ask(host, tables, "way/in")[0] == b"x"


def test_a_directory_that_may_be_listed_and_not_searched(host: Host, tables: Tables) -> None:
    host.directory("list", mode=0o744)
    host.file("list/in", b"x")
    assert ask(host, tables, "list")[2:] == [True, DENIED, False]
    assert ask(host, tables, "list/in")[0] == DENIED


def test_a_directory_that_may_be_written_and_not_searched_takes_no_file(host: Host, tables: Tables) -> None:
    host.directory("drop", mode=0o766)
    assert ask(host, tables, "drop")[3:] == [DENIED, False]


def test_the_one_group_counts_and_no_other(host: Host, tables: Tables) -> None:
    for group, expected in ((5001, b"x"), (5002, DENIED), (0, DENIED)):
        host.file("home/joe/grouped", b"x", mode=0o640, uid=5009, gid=group)
        assert ask(host, tables, "home/joe/grouped")[0] == expected


@pytest.mark.peer("setfacl")
def test_access_lists_count(host: Host, tables: Tables) -> None:
    directory = host.directory("listed", mode=0o700)
    assert ask(host, tables, "listed")[3:] == [DENIED, False]
    subprocess.run(["setfacl", "-m", "u:5001:rx", directory], check=True)
    assert ask(host, tables, "listed")[2:] == [True, True, False]
    subprocess.run(["setfacl", "-m", "u:5001:rwx", directory], check=True)
    assert ask(host, tables, "listed")[2:] == [True, True, True]
    file = host.file("listed/file", b"x", mode=0o644)
    subprocess.run(["setfacl", "-m", "u:5001:-", file], check=True)
    assert ask(host, tables, "listed/file")[0] == DENIED


def test_links_are_followed_as_the_user_may(host: Host, tables: Tables) -> None:
    host.file("home/joe/data", b"x", uid=5001)
    host.directory("closed", mode=0o700)
    host.file("closed/data", b"x")
    for target, expected in (
        ("data", b"x"),
        ("../../closed/data", DENIED),
        ("no", None),
        ("ln", "?Too many levels of symbolic links"),
    ):
        path = host.root / "home/joe/ln"
        path.unlink(missing_ok=True)
        path.symlink_to(target)
        assert ask(host, tables, "home/joe/ln")[0] == expected


def test_a_fifo_blocks_nobody(host: Host, tables: Tables) -> None:
    os.mkfifo(host.root / "home/joe/fifo", 0o666)
    assert ask(host, tables, "home/joe/fifo")[0] == "?Invalid argument"


def test_a_constant_database_is_opened_as_the_user(host: Host, tables: Tables) -> None:
    path = os.fsencode(host.file("home/joe/db", cdb_bytes([(b"k", b"v")]), mode=0o600, uid=5001))

    def get(looks: FileAccess) -> object:
        database = looks.cdb(path)
        return None if database is None else database.get(b"k")

    assert as_joe(host, tables, get) == b"v"
    assert as_joe(host, tables, get, ANN) == DENIED
    assert as_joe(host, tables, get) == b"v"
    os.unlink(path)
    assert as_joe(host, tables, get) is None


def test_one_user_s_open_database_is_not_another_s(host: Host, tables: Tables) -> None:
    """Also when it is searched after it was kept open for somebody who may."""
    path = os.fsencode(host.file("home/joe/db", cdb_bytes([(b"k", b"v")]), mode=0o644, uid=5001))
    assert as_joe(host, tables, lambda looks: looks.cdb(path) is not None, ANN) is True
    os.chmod(path, 0o600)
    assert as_joe(host, tables, lambda looks: looks.cdb(path) is not None) is True
    assert as_joe(host, tables, lambda looks: looks.cdb(path) is not None, ANN) == DENIED


# -- a process that may not switch --------------------------------------------------------------------


def in_a_child(uid: int, check: Callable[[], bool]) -> bool:
    """Whether the check holds in a child that is this user and may nothing else."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            status = 0 if check() else 2
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def test_the_user_itself_looks_directly_and_others_by_bits(host: Host) -> None:
    (host.root / "home/joe").chmod(0o700)
    host.file("home/joe/data", b"x", mode=0o600, uid=5001)

    def kind(expected: type, exact: bool, file: object) -> bool:
        tables = Tables(Settings.from_environment(host.environment))
        tables.request()
        path = home(host) + b"/data"
        found = as_joe(host, tables, lambda looks: (type(looks), looks.exact))
        return found == (expected, exact) and as_joe(host, tables, lambda looks: looks.file(path)) == file

    assert in_a_child(5001, lambda: kind(SetfsuidAccess, True, b"x"))
    assert in_a_child(5077, lambda: kind(ModeBitAccess, False, DENIED))
    tables = Tables(Settings.from_environment(host.environment))
    tables.request()
    assert as_joe(host, tables, lambda looks: (type(looks), looks.exact)) == (SetfsuidAccess, True)


# -- dependencies -----------------------------------------------------------------------------------------

MAILDIR = "home/joe/a/Maildir"


def furnished(host: Host) -> None:
    """Below joe's home: a way of two directories to a file and a database, and a directory that takes files."""
    for directory in ("home/joe/a", MAILDIR, f"{MAILDIR}/new"):
        host.directory(directory, mode=0o700, uid=5001, gid=5001)
    host.file("home/joe/a/file", b"x", mode=0o600, uid=5001, gid=5001)
    host.file("home/joe/a/db", cdb_bytes([(b"k", b"v")]), mode=0o600, uid=5001, gid=5001)


def looked_at(looks: FileAccess, root: Path) -> None:
    """What a plug-in would look at for an answer."""

    def at(path: str) -> bytes:
        return os.fsencode(root / "home/joe" / path)

    database = looks.cdb(at("a/db"), secret=True, sound=True)
    assert database is not None
    database.get(b"k")
    looks.file(at("a/file"))
    looks.file(at("a/missing"))
    looks.status(at("a"))
    looks.writable(at("a/Maildir/new"))
    looks.enters(at("a"))


def replaced(path: str, data: bytes) -> Callable[[Host], object]:
    def step(host: Host) -> None:
        host.file(path + ".new", data, mode=0o600, uid=5001, gid=5001)
        os.rename(host.root / (path + ".new"), host.root / path)

    return step


def rewritten(path: str) -> Callable[[Host], object]:
    """In place, with the mtime set back."""

    def step(host: Host) -> None:
        st = (host.root / path).stat()
        with (host.root / path).open("r+b", buffering=0) as file:
            file.write(b"y")
        os.utime(host.root / path, ns=(st.st_atime_ns, st.st_mtime_ns))

    return step


def linked(path: str) -> Callable[[Host], object]:
    """A link to what it was."""

    def step(host: Host) -> None:
        os.rename(host.root / path, host.root / "aside")
        os.symlink(host.root / "aside", host.root / path)

    return step


CHANGES: dict[str, Callable[[Host], object]] = {
    "a file is replaced": replaced("home/joe/a/file", b"y"),
    "a file is rewritten": rewritten("home/joe/a/file"),
    "a file is removed": lambda host: (host.root / "home/joe/a/file").unlink(),
    "a file has another mode": lambda host: (host.root / "home/joe/a/file").chmod(0o400),
    "a file has another owner": lambda host: os.chown(host.root / "home/joe/a/file", 5002, 5002),
    "a file becomes a link": linked("home/joe/a/file"),
    "what was missing is there": lambda host: host.file("home/joe/a/missing"),
    "what was missing is a link": lambda host: os.symlink("nowhere", host.root / "home/joe/a/missing"),
    "a database is replaced": replaced("home/joe/a/db", cdb_bytes([(b"k", b"w")])),
    "a database is rewritten": rewritten("home/joe/a/db"),
    "a database is cut": lambda host: os.truncate(host.root / "home/joe/a/db", 100),
    "a database is removed": lambda host: (host.root / "home/joe/a/db").unlink(),
    "a directory takes no more files": lambda host: (host.root / MAILDIR / "new").chmod(0o500),
    "a directory is somebody else's": lambda host: os.chown(host.root / MAILDIR / "new", 5002, 5002),
    "a directory is removed": lambda host: (host.root / MAILDIR / "new").rmdir(),
    "a directory on the way closes": lambda host: (host.root / MAILDIR).chmod(0o600),
    "a directory on the way is somebody else's": lambda host: os.chown(host.root / "home/joe/a", 0, 0),
    "a directory on the way is moved": lambda host: os.rename(host.root / MAILDIR, host.root / "home/joe/a/M"),
    "a directory on the way becomes a link": linked("home/joe/a"),
    "the way is another one": lambda host: (
        shutil.copytree(host.root / "home/joe/a", host.root / "home/joe/b"),
        os.rename(host.root / "home/joe/a", host.root / "home/joe/c"),
        os.rename(host.root / "home/joe/b", host.root / "home/joe/a"),
    ),
    "an access list": lambda host: subprocess.run(
        ["setfacl", "-m", "u:5001:-", host.root / MAILDIR / "new"], check=True
    ),
}


class Remembered:
    """A host that is old enough, and the tables of one who has looked at it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.tables = Tables(Settings.from_environment(host.environment))

    def dependencies(self, also: Callable[[FileAccess], object] | None = None) -> Dependencies | None:
        """What an answer would rest on, for which joe's home and what is in it were looked at."""
        for _ in range(2):  # the second time all is covered that can be
            self.tables.request()
            self.tables.home(home(self.host), JOE)
            self.tables.as_user(JOE, home(self.host), lambda looks: looked_at(looks, self.host.root))
            if also is not None:
                self.tables.as_user(JOE, home(self.host), also)
        return self.tables.current.dependencies()

    def holds(self, dependencies: Dependencies) -> bool:
        self.tables.request()
        return self.tables.still_valid(dependencies)


@pytest.fixture(scope="module")
def quiet() -> Iterator[dict[str, Host]]:
    """A host for each change and one to be left alone; all of them old enough to be remembered."""
    with temporary_directory() as directory:
        hosts = {}
        for number, name in enumerate([*CHANGES, "none"]):
            place = directory / str(number)
            place.mkdir()
            hosts[name] = plain_host(place)
            furnished(hosts[name])
        until_old(hosts.values())
        yield hosts


def test_while_nothing_changes_the_dependencies_hold(quiet: dict[str, Host]) -> None:
    world = Remembered(quiet["none"])
    dependencies = world.dependencies()
    assert dependencies is not None
    assert all(world.holds(dependencies) for _ in range(10))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.peer("setfacl")
def test_each_change_below_the_home_makes_it_fall(quiet: dict[str, Host], change: str) -> None:
    world = Remembered(quiet[change])
    dependencies = world.dependencies()
    assert dependencies is not None
    assert world.holds(dependencies)
    CHANGES[change](world.host)
    assert not world.holds(dependencies)


ELSEWHERE: dict[str, Callable[[FileAccess, Path], object]] = {
    "a file outside": lambda looks, root: looks.file(os.fsencode(root / "control/me")),
    "a directory outside": lambda looks, root: looks.enters(os.fsencode(root / "home/ann")),
    "a directory outside that takes files": lambda looks, root: looks.writable(os.fsencode(root / "home/ann")),
    "a database outside": lambda looks, root: looks.cdb(os.fsencode(root / "users/none")),
    "something missing outside": lambda looks, root: looks.status(os.fsencode(root / "nothing")),
    "the home's sibling": lambda looks, root: looks.status(os.fsencode(root / "home/joel")),
    "the home from below": lambda looks, root: looks.status(os.fsencode(root / "home/joe/a/../../ann")),
    "a dot": lambda looks, root: looks.status(os.fsencode(root / "home/joe") + b"/./a"),
    "two slashes": lambda looks, root: looks.status(os.fsencode(root / "home/joe") + b"//a"),
    "a listing": lambda looks, root: looks.listing(os.fsencode(root / "home/joe/a")),
    "a link": lambda looks, root: looks.status(os.fsencode(root / "home/joe/link")),
    "what a link leads to": lambda looks, root: looks.file(os.fsencode(root / "home/joe/link/file")),
    "a link that dangles": lambda looks, root: looks.status(os.fsencode(root / "home/joe/dangling")),
}


@pytest.fixture(scope="module")
def with_links() -> Iterator[Host]:
    with temporary_directory() as directory:
        host = plain_host(directory)
        furnished(host)
        (host.root / "home/joe/link").symlink_to("a")
        (host.root / "home/joe/dangling").symlink_to("nowhere")
        until_old([host])
        yield host


@pytest.mark.parametrize("where", ELSEWHERE)
def test_what_is_not_plainly_below_the_home_is_not_cached(with_links: Host, where: str) -> None:
    world = Remembered(with_links)
    assert world.dependencies() is not None
    assert world.dependencies(lambda looks: ELSEWHERE[where](looks, with_links.root)) is None


def test_what_is_asked_as_self_or_of_tables_meanwhile_is_not_cached(with_links: Host) -> None:
    world = Remembered(with_links)
    path = home(with_links) + b"/a/file"
    assert world.dependencies(lambda _: world.tables.as_self(lambda: world.tables.file(path))) is None
    assert world.dependencies(lambda _: world.tables.file(path, JOE)) is None
    assert world.dependencies(lambda _: world.tables.current.not_cacheable()) is None
    assert world.dependencies() is not None


def test_what_has_just_changed_is_not_cached(host: Host) -> None:
    """Another change within the same tick of the clock would not be seen."""
    furnished(host)
    until_old([host])
    assert Remembered(host).dependencies() is not None
    replaced("home/joe/a/file", b"y")(host)
    assert Remembered(host).dependencies() is None


def test_another_file_system_is_not_cached(host: Host) -> None:
    furnished(host)
    until_old([host])
    with mounted("/sys/kernel", host.root / MAILDIR / "new"):
        assert Remembered(host).dependencies() is None


def test_a_trace_has_no_dependencies(with_links: Host) -> None:
    noted: list[tuple[str, object, object]] = []
    tables = Tables(Settings.from_environment(with_links.environment), note=lambda *question: noted.append(question))
    tables.request()
    tables.as_user(JOE, home(with_links), lambda looks: looked_at(looks, with_links.root))
    assert tables.current.dependencies() is None
    assert [table for table, _, _ in noted] == ["file", "file", "status", "writable", "enters"]
    tables.as_user(JOE, home(with_links), lambda looks: looks.file(home(with_links) + b"/a/file", secret=True))
    assert noted[-1][2] == "(not shown)"
