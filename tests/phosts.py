"""Hosts whose .qmail files call programs, in memory: a disk of dicts under the plug-ins' own rules.

    disk = Disk()
    disk.file(b"/home/joe/.qmail-default", b"|fastforward t.cdb\n", uid=5001)
    disk.file(b"/home/joe/t.cdb", table({b":a@example.org": b"&b@far.example\0"}), uid=5001)

`from_corpus` makes a system of the corpus out of it, `Looking` stands where `Tables` stands for a program.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from stat import S_IFDIR, S_IFREG
from typing import Any, NamedTuple, TypeVar, cast

import pytest
from disk import Asking, Disk
from hosts import as_bytes, cdb_bytes, systems
from memory import Memory, accounts_of, controls, database

from cvm_qmail.answer import Recipient, Table, Unavailable
from cvm_qmail.entry_points import load_programs
from cvm_qmail.plugin import Delivery, FileAccess, Lookup, Plugin, Ran, RunProgram
from cvm_qmail.qmail import qmail
from cvm_qmail.rules.dotqmail import DotQmail, Found
from cvm_qmail.rules.users import User
from cvm_qmail.settings import Settings
from cvm_qmail.tables.access import Status
from cvm_qmail.tables.cdb import Database
from cvm_qmail.tables.control import parse
from cvm_qmail.tables.door import Tables
from cvm_qmail.tables.rights import Rights

T = TypeVar("T")
Case = Mapping[str, Any]

SYSTEMS = systems("programs")


def with_the_patch(system: Mapping[str, Any]) -> list[Case]:
    """The cases of a host whose qmail-local has the qmail-branch patch, or knows nothing of it."""
    return cast("list[Case]", system["cases"])


def without_the_patch(system: Mapping[str, Any]) -> list[Case]:
    """The cases of a host of the patch, on which it is not installed: always yes will do there."""
    return [{**case, "expect": case["plain"], "simple": False} if "plain" in case else case for case in system["cases"]]


BRANCHING = {"1": with_the_patch, "0": without_the_patch}
"""The cases by CVM_QMAIL_BRANCH."""


def runs_of(paths: list[Path]) -> list[Any]:
    """Each system with the settings of CVM_QMAIL_BRANCH with which it is asked."""
    return [
        pytest.param(path, branch, id=f"{path.stem}-branch-{branch}")
        for path in paths
        for branch in ("10" if "branch" in path.stem else "0")
    ]


TEMPORARY_INSTEAD_OF_BOUNCED = {
    "second-vmailmgr": {"oldbad", "bad3", "badflag", "short", "noend", "emptyrec", "trail", "nonum"},
    "second-vmailmgr-trouble": {
        "emptyrec",
        *(f"list{kind}-{name}" for kind in ("miss", "short", "priv", "dang") for name in ("sales", "nobody")),
        "listhead-sales",
    },
}
"""Where the corpus and the specification contradict each other, by host: local parts.

vdeliver bounces because it cannot read its table, or a record.  The corpus's README allows a rejection or an
acceptance for these.  The specification wants a temporary failure (spec/programs.md, law 4): an error is no answer.
The specification is followed here, and docs/differences.md says so.
"""


def deviates(system: Mapping[str, Any], case: Case) -> bool:
    """Whether the expected answer is one that the corpus's README does not allow."""
    return case["local"] in TEMPORARY_INSTEAD_OF_BOUNCED.get(system["name"], set())


def odd_answer(system: Mapping[str, Any], said: str, case: Case) -> str:
    """As `odd`, but where the corpus and the specification contradict each other, by the specification."""
    if deviates(system, case):
        return "" if said == "defer" else f"{case['local']!r}: {said}, expected a temporary failure"
    return odd(said, case)


def odd(said: str, case: Case) -> str:
    """What is wrong with an answer, by the corpus's README; empty: nothing."""
    expected = case["expect"]
    allowed = {expected} if case["simple"] or expected in ("deliver", "remote") else {expected, "deliver"}
    if said in allowed:
        return ""
    address = f"{case['local']!r} at {case['domain']!r}"
    file = case["detail"].get("dotqmail")
    return f"{address}: {said}, expected {expected} ({case['program']}, {case['why']}, {file})"


ROOT = b"/root-of-the-corpus"


def table(records: Mapping[bytes, bytes]) -> bytes:
    """A constant database of these records."""
    return cdb_bytes(list(records.items()))


class Seen:
    """What one user sees of a `Disk`: `FileAccess` of dicts."""

    exact = True

    def __init__(self, disk: Disk, rights: Rights) -> None:
        self._disk = disk
        self._rights = rights

    def _find(self, path: bytes) -> Any:
        assert path.startswith(b"/"), f"not absolute: {path!r}"
        try:
            return self._disk.find(path, self._rights)[1]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Unavailable("unreadable", repr(error), path, errno=error.errno) from None

    def file(self, path: bytes, /, **_: bool) -> bytes | None:
        node = self._find(path)
        if node is None:
            return None
        if node.content is None or not node.grants(self._rights, 4):
            raise Unavailable("refused", "", path, errno=errno.EACCES)
        return bytes(node.content)

    def status(self, path: bytes, /) -> Status | None:
        node = self._find(path)
        if node is None:
            return None
        kind, size = (S_IFDIR, 4096) if node.content is None else (S_IFREG, len(node.content))
        return Status(node.uid, node.gid, kind | node.mode, size, node.mtime)

    def listing(self, _: bytes, /) -> list[bytes] | None:
        raise AssertionError("no program lists a directory")

    def enters(self, _: bytes, /) -> bool:
        raise AssertionError("no program enters a directory")

    def writable(self, _: bytes, /) -> bool | None:
        raise AssertionError("no program asks where it may write")

    def is_link(self, _: bytes, /) -> bool:
        raise AssertionError("no program asks for symbolic links")

    def cdb(self, path: bytes, /, **_: bool) -> Table[bytes, bytes] | None:
        content = self.file(path)
        return None if content is None else Database(content, path)


class Looking(Memory):
    """A host in memory on whose disk programs look."""

    def __init__(self, disk: Disk, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, homes=disk.home, **more)
        self.disk = disk

    def as_user(self, rights: Rights, _: bytes, function: Callable[[FileAccess], T]) -> T:
        return function(Seen(self.disk, rights))

    def as_self(self, function: Callable[[], T]) -> T:
        return function()

    def user_cdb(self, rights: Rights, _: bytes, path: bytes) -> Table[bytes, bytes] | None:
        return Seen(self.disk, rights).cdb(path)


HOME = b"/home/joe"
OWNER = Rights(5001, 5001)


def delivery(
    ext: str = "", *, default: bool = True, host: bytes = b"example.org", runs: tuple[RunProgram, ...] = ()
) -> Delivery:
    """What qmail-local knows of joe-EXT, whose lines are in .qmail-default, or in a file of its own."""
    extension = ext.encode("latin-1")
    user = User(b"joe", *OWNER, HOME, b"-", extension)
    name = b".qmail-default" if default else b".qmail-" + extension.lower()
    found = Found(name, DotQmail(0o100644, b""), default)
    local = b"joe-" + extension
    return Delivery(Recipient(local, host), user, b"-", extension, host, found, local, runs)


def looking(disk: Disk) -> Tables:
    """A disk as what a program asks of `Tables`."""
    return cast("Tables", Looking(disk, controls()))


def running(factory: Callable[[Tables, Settings], Plugin], disk: Disk | None = None) -> tuple[RunProgram, ...]:
    """The programs that a plug-in says something of."""
    run = factory(looking(disk or Disk()), Settings.from_environment({})).run
    assert run is not None
    return (run,)


def code(rule: Callable[..., Ran | None], *given: Any) -> int | None:
    """The exit status that a program's rule determines; None: only a run could say it."""
    try:
        ran = rule(*given)
    except Unavailable:
        return 111
    return None if ran is None else ran.status


class Host(NamedTuple):
    """One host, and what cvm-qmail says of it."""

    memory: Looking
    root: bytes

    def lookup(self, **variables: str) -> Lookup:
        """The lookup with all the plug-ins that are installed."""
        settings = Settings.from_environment({"QMAIL_ROOT": self.root.decode(), **variables})
        tables = cast("Tables", self.memory)
        programs = load_programs(
            tables, settings._replace(programs=("dot-forward", "fastforward", "qmail", "vmailmgr"))
        )
        return qmail(tables, settings, programs).lookup


def from_corpus(system: Mapping[str, Any]) -> Host:
    """A system of the corpus of programs."""

    def placed(text: str) -> bytes:
        return as_bytes(text.replace("{root}", ROOT.decode()))

    disk = Disk()
    disk.plant(system["tree"], ROOT, placed)
    accounts = accounts_of(system, placed)
    qmailp = accounts[b"qmailp"]
    control = system["control"]
    names = ("me", "envnoathost", "locals", "percenthack", "virtualdomains")
    memory = Looking(
        disk,
        parse(*(placed(control[name]) if name in control else None for name in names)),
        cdb=database(system["cdb"], placed),
        accounts=accounts,
        owners=Asking(lambda path: disk.owner(path, Rights(qmailp.uid, qmailp.gid))),
    )
    return Host(memory, ROOT)
