"""The only way to the file system: what plug-ins may ask, and what `cvmctl trace` hears."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hosts import Host, cdb_bytes

from cvm_qmail.answer import Recipient, Unavailable
from cvm_qmail.qmail import qmail
from cvm_qmail.settings import Settings
from cvm_qmail.tables.calls import READ_LIMIT
from cvm_qmail.tables.cdb import Database
from cvm_qmail.tables.door import CDB_LIMIT, Rights, Tables

pytestmark = pytest.mark.root

JOE = Rights(5001, 5001)


@pytest.fixture
def tables(host: Host) -> Tables:
    return Tables(Settings.from_environment(host.environment))


def path(host: Host, name: str) -> bytes:
    return os.fsencode(host.root / name)


def makes_a_file(directory: Path, rights: Rights | None) -> bool:
    """Whether a child with these rights, and nobody's groups, makes a file there."""
    as_user = ["setpriv", f"--reuid={rights.uid}", f"--regid={rights.gid}", "--clear-groups"] if rights else []
    child = subprocess.run([*as_user, "mktemp", "-p", directory], capture_output=True, check=False)
    return child.returncode == 0


def test_a_file_is_its_bytes_or_none_or_a_temporary_failure(host: Host, tables: Tables) -> None:
    host.file("home/joe/data", b"\0\xff" * 1000, mode=0o640, uid=5002, gid=5001)
    assert tables.file(path(host, "home/joe/data"), JOE) == b"\0\xff" * 1000
    assert tables.file(path(host, "home/joe/nothing"), JOE) is None
    assert tables.file(path(host, "passwd/x")) is None
    for rights, name in ((Rights(5009, 5009), "home/joe/data"), (None, "home/joe")):
        with pytest.raises(Unavailable):
            tables.file(path(host, name), rights)
    os.mkfifo(host.root / "fifo")
    host.file("huge")
    os.truncate(host.root / "huge", READ_LIMIT + 1)
    for name, what in (("fifo", "not a regular file"), ("huge", f"more than {READ_LIMIT} bytes")):
        with pytest.raises(Unavailable, match=what):
            tables.file(path(host, name))


def test_a_status_is_what_stat_says_to_the_user(host: Host, tables: Tables) -> None:
    host.file("home/joe/data", b"12345", mode=0o640, uid=5001, gid=5002)
    status = tables.status(path(host, "home/joe/data"), JOE)
    assert status is not None
    assert status[:4] == (5001, 5002, 0o100640, 5)
    assert tables.status(path(host, "nowhere"), JOE) is None
    (host.root / "home/joe").chmod(0o700)
    tables.request()
    with pytest.raises(Unavailable, match="refused"):
        tables.status(path(host, "home/joe/data"), Rights(5002, 5002))


def test_a_listing_is_the_names_in_a_directory(host: Host, tables: Tables) -> None:
    assert sorted(tables.listing(path(host, "home"), JOE) or []) == [b"ann", b"joe"]
    assert tables.listing(path(host, "nowhere"), JOE) is None
    (host.root / "home").chmod(0o711)
    with pytest.raises(Unavailable, match="refused"):
        tables.listing(path(host, "home"), JOE)


def test_a_directory_is_entered_by_whom_it_lets_in(host: Host, tables: Tables) -> None:
    (host.root / "home/joe/link").symlink_to(".")
    expected = {"": True, "link": True, "nothing": False, ".qmail-foo": False, ".qmail-foo/x": False}
    assert {name: tables.enters(path(host, f"home/joe/{name}"), JOE) for name in expected} == expected
    (host.root / "home/joe").chmod(0o700)
    tables.request()
    assert tables.enters(path(host, "home/joe"), JOE)
    with pytest.raises(Unavailable) as error:
        tables.enters(path(host, "home/joe"), Rights(5002, 5002))
    assert (error.value.reason, error.value.errno) == ("refused", errno.EACCES)


@pytest.mark.peer("setpriv")
def test_a_directory_is_writable_for_whom_the_kernel_lets_make_files(host: Host, tables: Tables) -> None:
    directory = host.directory("home/joe/Maildir", mode=0o755, uid=5001, gid=5003)
    name = path(host, "home/joe/Maildir")
    for rights in (JOE, Rights(5002, 5003), Rights(5002, 5002), None):
        for mode in (0o700, 0o070, 0o007, 0o300, 0o600, 0o555, 0o777):
            directory.chmod(mode)
            tables.request()
            assert tables.writable(name, rights) is makes_a_file(directory, rights), (rights, oct(mode))


def test_what_is_no_directory_is_not_writable_and_nothing_is_none(host: Host, tables: Tables) -> None:
    host.file("home/joe/data", mode=0o777, uid=5001, gid=5001)
    (host.root / "home/joe/link").symlink_to(".")
    (host.root / "home/joe/nowhere").symlink_to("gone")
    expected = {"data": False, "data/x": None, "nothing": None, "nowhere": None, "link": True, "": True}
    assert {name: tables.writable(path(host, f"home/joe/{name}"), JOE) for name in expected} == expected
    (host.root / "home/joe/loop").symlink_to("loop")
    with pytest.raises(Unavailable, match="unreadable"):
        tables.writable(path(host, "home/joe/loop"), JOE)


def test_a_directory_behind_a_closed_one_is_not_writable(host: Host, tables: Tables) -> None:
    host.directory("home/ann/open", mode=0o777)
    (host.root / "home/ann").chmod(0o700)
    assert tables.writable(path(host, "home/ann/open"), JOE) is False
    assert tables.writable(path(host, "home/ann/open"), Rights(5002, 5002)) is True


def test_plug_ins_do_what_may_hang_at_a_place_with_a_name(host: Host) -> None:
    class Guard:
        place = b""

        def mark(self, resource: bytes) -> None:
            self.place = resource
            if resource == b"database":
                raise Unavailable("hang-backoff", "it hung", resource)

    hang_guard = Guard()
    tables = Tables(Settings.from_environment(host.environment), hang_guard=hang_guard)
    tables.request()
    tables.mark(b"hash")
    assert hang_guard.place == b"hash"
    with pytest.raises(Unavailable, match="hang-backoff"):
        tables.mark(b"database")


DOORS: dict[str, Callable[[Tables, bytes], object]] = {
    "file": Tables.file,
    "status": Tables.status,
    "listing": Tables.listing,
    "cdb": Tables.cdb,
    "enters": Tables.enters,
    "writable": Tables.writable,
    "is_link": Tables.is_link,
    "exact": lambda tables, _: tables.exact(JOE),
    "mark": Tables.mark,
}


@pytest.mark.parametrize("door", DOORS)
def test_an_answer_that_rests_on_what_a_plug_in_asked_is_not_kept(host: Host, tables: Tables, door: str) -> None:
    tables.request()
    assert tables.current.dependencies() is not None
    DOORS[door](tables, path(host, "home/nothing"))
    assert tables.current.dependencies() is None


def test_a_cdb_is_a_table_as_it_is_now(host: Host, tables: Tables) -> None:
    name = path(host, "home/joe/x.cdb")
    assert tables.cdb(name, JOE) is None
    for value in (b"one", b"two", b"six") * 20:
        host.file("home/joe/x.cdb", cdb_bytes([(b"key", value)]), uid=5001, gid=5001)
        table = tables.cdb(name, JOE)
        assert table is not None
        assert (table.get(b"key"), table.get(b"other")) == (value, None)
    host.file("home/joe/x.cdb", b"short", uid=5001, gid=5001)
    table = tables.cdb(name, JOE)
    assert table is not None
    with pytest.raises(Unavailable):
        table.get(b"key")


def test_a_cdb_is_opened_with_the_rights_asked_for_and_kept_apart(host: Host, tables: Tables) -> None:
    host.file("home/joe/x.cdb", cdb_bytes([(b"key", b"value")]), mode=0o600, uid=5001, gid=5001)
    name = path(host, "home/joe/x.cdb")
    assert isinstance(tables.cdb(name, JOE), Database)
    with pytest.raises(Unavailable) as error:
        tables.cdb(name, Rights(5002, 5002))
    assert error.value.errno == errno.EACCES
    assert isinstance(tables.cdb(name, JOE), Database)


def test_no_more_databases_than_the_bound_are_kept_open(host: Host, tables: Tables) -> None:
    data = host.file("big.cdb", cdb_bytes([(b"key", b"x" * (2 << 20))]))
    before = len(os.listdir("/proc/self/fd"))
    for number in range(CDB_LIMIT + 50):
        os.link(data, host.root / f"{number}.cdb")
        table = tables.cdb(path(host, f"{number}.cdb"))
        assert table is not None
    assert len(os.listdir("/proc/self/fd")) - before <= CDB_LIMIT + 5


def test_a_trace_hears_every_question_and_gets_the_same_answer(host: Host) -> None:
    heard: list[tuple[str, object]] = []
    settings = Settings.from_environment(host.environment)
    watched = Tables(settings, note=lambda table, key, _: heard.append((table, key)))
    plain = Tables(settings)
    for account, domain in (
        (b"joe-foo", b"example.org"),
        (b"nobody", b"example.org"),
        (b"x", b"v.example"),
        (b"", None),
    ):
        heard.clear()
        recipient = Recipient(account, domain)
        assert qmail(watched, settings, []).lookup(recipient) == qmail(plain, settings, []).lookup(recipient)
        assert heard
    heard.clear()
    qmail(watched, settings, []).lookup(Recipient(b"joe-foo", b"example.org"))
    asked = [table for table, _ in heard]
    assert asked.index("locals") < asked.index("passwd") < asked.index("owner") < asked.index("home")
    assert asked[-1] == "dotqmail"


def test_a_trace_hears_what_a_table_of_a_plug_in_is_asked(host: Host, tables: Tables) -> None:
    heard: list[tuple[str, object, object]] = []
    tracing = Tables(Settings.from_environment(host.environment), note=lambda *said: heard.append(said))
    table = {b"joe": 1}
    assert tracing.traced("mailboxes", table).get(b"joe") == 1
    assert heard == [("mailboxes", b"joe", 1)]
    assert tables.traced("mailboxes", table) is table


def test_a_trace_hears_of_errors_too(host: Host) -> None:
    heard: list[tuple[str, object]] = []
    settings = Settings.from_environment(host.environment)
    tables = Tables(settings, note=lambda table, _, value: heard.append((table, value)))
    (host.root / "home/joe").chmod(0)
    with pytest.raises(Unavailable) as error:
        qmail(tables, settings, []).lookup(Recipient(b"joe", b"example.org"))
    assert heard[-1] == ("home", error.value)


def test_a_trace_hears_what_a_plug_in_meets(host: Host) -> None:
    heard: list[tuple[str, object, object]] = []
    tables = Tables(Settings.from_environment(host.environment), note=lambda *said: heard.append(said))
    host.file("home/joe/roots", b"text", mode=0o600)
    name = path(host, "home/joe/roots")
    with pytest.raises(Unavailable, match="refused") as error:
        tables.file(name, JOE)
    assert tables.file(name) == b"text"
    assert tables.file(name + b"/x") is None
    assert heard == [("file", name, error.value), ("file", name, b"text"), ("file", name + b"/x", None)]


def test_a_plug_in_may_ask_when_the_request_began(tables: Tables) -> None:
    before = tables.current.began
    tables.request()
    assert tables.current.began > before
    began = tables.current.began
    tables.home(b"/", JOE)
    assert tables.current.began == began


def test_an_answer_that_lasts_for_a_while_is_cached_no_longer(tables: Tables) -> None:
    tables.request()
    tables.current.valid_until(tables.current.began + 1000)
    dependencies = tables.current.dependencies()
    assert dependencies is not None
    assert tables.still_valid(dependencies)
    assert not tables.still_valid(dependencies._replace(until=tables.current.began))
    tables.request()
    assert tables.current.dependencies() == dependencies._replace(until=float("inf")), (
        "the next request knows nothing of it"
    )


def test_an_answer_that_can_be_asked_again_holds_while_that_does(host: Host) -> None:
    class Guard:
        def __init__(self) -> None:
            self.marked: list[bytes] = []

        def mark(self, resource: bytes) -> None:
            self.marked.append(resource)

    guard = Guard()
    tables = Tables(Settings.from_environment(host.environment), hang_guard=guard)
    found = [True]
    tables.request()
    tables.mark(b"database", checked=True)
    tables.current.recheck_with(b"database", lambda: guard.marked[-1] == b"database" and found[0])
    dependencies = tables.current.dependencies()
    assert dependencies is not None
    guard.marked.append(b"elsewhere")
    assert tables.still_valid(dependencies), "and the hang guard knows where it looks"
    found[0] = False
    assert not tables.still_valid(dependencies)
    tables.mark(b"database")
    assert tables.current.dependencies() is None, "nobody knows whether what was seen there is unchanged"
