"""An answer about a vpopmail address rests on the files as they are when the request arrives.

Each change is made there and back, again and again, to somebody who has never heard of the address
("cold"), and to somebody who was asked so often, of files that are so old, that the answer is
remembered where it may be.  Which answers may be is said with each change: none that rests on the clock, on
the names in a directory, or on anything outside of the domain's directory.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from changing import NO, TEMPORARY, YES, Worker, there_and_back, until_old
from hosts import temporary_directory
from serving import serving
from vdomains import BOUNCE, UID, VpopmailHost, vpopmail_host

from cvm_qmail.qmail import qmail
from cvm_qmail.settings import Settings
from cvm_vpopmail.module import module
from cvm_vpopmail.program import plugin

pytestmark = pytest.mark.root

TURNS = 6

Step = Callable[[VpopmailHost], object]

DD = "example.com"
CDB, VPASSWD, DEFAULT = f"{DD}/vpasswd.cdb", f"{DD}/vpasswd", f"{DD}/.qmail-default"
HOME, DOTQMAIL, MAILDIR, SIZE = f"{DD}/bob", f"{DD}/bob/.qmail", f"{DD}/bob/Maildir", f"{DD}/bob/Maildir/maildirsize"


class Change(NamedTuple):
    """From one answer to another, and back."""

    address: str
    before: int
    after: int
    there: Step
    back: Step
    first: Step | None = None
    kept: bool = True
    """Whether the answer before it may be remembered."""
    variables: tuple[tuple[str, str], ...] = ()
    scope: bool = False
    """Whether the address is afterwards nothing that cvm-vpopmail answers for."""


# -- ways to change a file ----------------------------------------------------------------------------


def accounts(*names: str) -> Step:
    """As vpopmail's tools do: written beside, and renamed."""
    return lambda host: host.accounts(DD, *names)


def in_place(*names: str) -> Step:
    """vpasswd.cdb written in place, its mtime set back."""

    def step(host: VpopmailHost) -> None:
        path = host.at(CDB)
        st = path.stat()
        with path.open("r+b", buffering=0) as file:
            file.write(host.cdb(DD, *names))
            file.truncate()
        os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))

    return step


def put(path: str, text: str, *, mode: int = 0o600, uid: int = UID) -> Step:
    return lambda host: host.put(path, text, uid, mode)


def gone(path: str) -> Step:
    return lambda host: host.at(path).unlink()


def moved(path: str, to: str) -> Step:
    return lambda host: host.at(path).rename(host.at(to))


def mode(path: str, bits: int) -> Step:
    return lambda host: host.at(path).chmod(bits)


def owner(path: str, uid: int) -> Step:
    return lambda host: os.chown(host.at(path), uid, uid)


def directory(path: str) -> Step:
    return lambda host: host.directory(f"v/domains/{path}", mode=0o700, uid=UID, gid=UID)


def tree_gone(path: str) -> Step:
    return lambda host: shutil.rmtree(host.at(path))


def home(name: str) -> Step:
    return lambda host: host.home_of(DD, name)


def aged(path: str, seconds: int) -> Step:
    """Last changed so long ago."""
    return lambda host: os.utime(host.at(path), (time.time() - seconds,) * 2)


def assigned(*domains: tuple[str, str, int]) -> Step:
    return lambda host: host.assign(*domains)


def control(name: str, text: str) -> Step:
    """Written beside, and renamed."""

    def step(host: VpopmailHost) -> None:
        host.control(name + ".new", text).rename(host.root / "control" / name)

    return step


def access(path: str, entry: str) -> Step:
    return lambda host: subprocess.run(["setfacl", "-m", entry, host.at(path)], check=True)


def plain(path: str) -> Step:
    return lambda host: subprocess.run(["setfacl", "-b", host.at(path)], check=True)


def steps(*parts: Step) -> Step:
    def step(host: VpopmailHost) -> None:
        for part in parts:
            part(host)

    return step


def appended(path: str, text: bytes) -> Step:
    """More in the file that is there."""

    def step(host: VpopmailHost) -> None:
        with host.at(path).open("ab") as file:
            file.write(text)

    return step


EXAMPLE, ALIAS = ("example.com", "example.com", UID), ("alias.example", "example.com", UID)
QUOTA = "bob::1000S"
OLD = 16 * 60
BOB, NEW = "bob@example.com", "kim@example.com"
VIRTUAL = "".join(f"{name}:{name}\n" for name in ("example.com", "alias.example", "b.example"))


def message(name: str, size: int) -> Step:
    return lambda host: host.file(f"v/domains/{MAILDIR}/new/{name}", bytes(size), mode=0o600, uid=UID, gid=UID)


def second_domain(host: VpopmailHost) -> None:
    """b.example, where bob is too."""
    host.domain("b.example")
    host.home_of("b.example", "bob")
    host.accounts("b.example", "bob")


ACCOUNTS = {
    "account added": Change(NEW, NO, YES, accounts("bob", "kim"), accounts("bob"), home("kim")),
    "account removed": Change(BOB, YES, NO, accounts("ann"), accounts("bob")),
    "account locked": Change(BOB, YES, NO, accounts("bob:16"), accounts("bob")),
    "account added in place": Change(NEW, NO, YES, in_place("bob", "kim"), in_place("bob"), home("kim")),
    "account locked in place": Change(BOB, YES, NO, in_place("bob:16"), in_place("bob:0")),
    "account gets another home": Change(
        BOB, YES, NO, accounts("bob:::/elsewhere/bob"), accounts("bob")
    ),
    "cdb gone, and vpasswd has nobody": Change(
        BOB, YES, NO, moved(CDB, f"{DD}/aside"), moved(f"{DD}/aside", CDB), put(VPASSWD, "")
    ),
    "vpasswd changed, where there is no cdb": Change(
        BOB, YES, NO, put(VPASSWD, "ann:x:1:0:::\n"), lambda host: host.put(VPASSWD, host.lines(DD, "bob")), gone(CDB)
    ),
    "cdb comes, where there was only vpasswd": Change(
        BOB, YES, NO, moved(f"{DD}/aside", CDB), moved(CDB, f"{DD}/aside"),
        steps(accounts("ann"), moved(CDB, f"{DD}/aside"), lambda host: host.put(VPASSWD, host.lines(DD, "bob"))),
    ),
    "cdb damaged": Change(BOB, YES, TEMPORARY, lambda host: os.truncate(host.at(CDB), 2000), accounts("bob")),
    "cdb refused": Change(
        BOB, YES, NO, steps(owner(CDB, 0)), steps(owner(CDB, UID)), put(VPASSWD, "ann:x:1:0:::\n")
    ),
    "cdb refused by an access list": Change(
        BOB, NO, YES, access(CDB, f"u:{UID}:r"), plain(CDB), steps(owner(CDB, 0), put(VPASSWD, "ann:x:1:0:::\n"))
    ),
}  # fmt: skip

HOMES = {
    "home removed, and cannot be made": Change(
        BOB, YES, NO, moved("home", "aside"), moved("aside", "home"),
        steps(moved(HOME, "home"), lambda host: host.accounts(DD, f"bob:::{host.at('home')}")),
        kept=False,  # it is not below the domain's directory
    ),
    "maildir made": Change(BOB, TEMPORARY, YES, home("bob"), tree_gone(MAILDIR), tree_gone(MAILDIR), kept=False),
    "home closed": Change(BOB, YES, TEMPORARY, mode(HOME, 0o600), mode(HOME, 0o700)),
    "home swapped": Change(
        BOB, YES, NO,
        steps(moved(HOME, f"{DD}/one"), moved(f"{DD}/two", HOME)),
        steps(moved(HOME, f"{DD}/two"), moved(f"{DD}/one", HOME)),
        steps(home("two"), put(f"{DD}/two/.qmail", "|exit 100\n")),
    ),
    ".qmail comes": Change(BOB, YES, NO, put(DOTQMAIL, "|exit 100\n"), gone(DOTQMAIL)),
    ".qmail goes": Change(BOB, NO, YES, gone(DOTQMAIL), put(DOTQMAIL, "|exit 100\n"), put(DOTQMAIL, "|exit 100\n")),
    ".qmail changed": Change(
        BOB, YES, NO, put(DOTQMAIL, "|exit 100\n"), put(DOTQMAIL, "|exit 000\n"), put(DOTQMAIL, "|exit 000\n")
    ),
    ".qmail refused": Change(
        BOB, NO, YES, mode(DOTQMAIL, 0o000), mode(DOTQMAIL, 0o600), put(DOTQMAIL, "|exit 100\n")
    ),
    ".qmail emptied": Change(
        BOB, NO, YES, put(DOTQMAIL, ""), put(DOTQMAIL, "|exit 100\n"), put(DOTQMAIL, "|exit 100\n")
    ),
    ".qmail by a link": Change(
        BOB, YES, NO, put("other", "|exit 100\n"), put("other", "|exit 000\n"),
        steps(put("other", "|exit 000\n"), lambda host: host.at(DOTQMAIL).symlink_to(host.at("other"))),
        kept=False,
    ),
    "extension's .qmail comes": Change(
        "bob-x@example.com", YES, NO, put(f"{HOME}/.qmail-default", "|exit 100\n"), gone(f"{HOME}/.qmail-default"),
        variables=(("CVM_VPOPMAIL_QMAIL_EXT", "1"),),
    ),
    "Maildir gone": Change(BOB, YES, TEMPORARY, moved(MAILDIR, f"{HOME}/M"), moved(f"{HOME}/M", MAILDIR)),
    "Maildir closed": Change(BOB, YES, TEMPORARY, mode(MAILDIR, 0o600), mode(MAILDIR, 0o700)),
    "Maildir/new closed": Change(BOB, YES, TEMPORARY, mode(f"{MAILDIR}/new", 0o500), mode(f"{MAILDIR}/new", 0o700)),
    "Maildir/tmp closed": Change(BOB, YES, TEMPORARY, mode(f"{MAILDIR}/tmp", 0o500), mode(f"{MAILDIR}/tmp", 0o700)),
    "Maildir/tmp of somebody else": Change(
        BOB, YES, TEMPORARY, owner(f"{MAILDIR}/tmp", 0), owner(f"{MAILDIR}/tmp", UID)
    ),
    "Maildir/tmp closed by an access list": Change(
        BOB, YES, TEMPORARY,
        steps(owner(f"{MAILDIR}/tmp", 0), mode(f"{MAILDIR}/tmp", 0o770), access(f"{MAILDIR}/tmp", f"u:{UID}:-")),
        steps(plain(f"{MAILDIR}/tmp"), owner(f"{MAILDIR}/tmp", UID)),
    ),
    "Maildir/new gone": Change(BOB, YES, TEMPORARY, tree_gone(f"{MAILDIR}/new"), directory(f"{MAILDIR}/new")),
}  # fmt: skip

DOMAINS = {
    ".qmail-default says delete": Change(
        NEW, NO, YES, put(DEFAULT, "|vdelivermail '' delete\n"), put(DEFAULT, BOUNCE),
        variables=(("CVM_VPOPMAIL_DELETE", "accept"),),
    ),
    ".qmail-default forwards": Change(
        NEW, NO, YES, put(DEFAULT, "|vdelivermail '' ann@x.example\n"), put(DEFAULT, BOUNCE)
    ),
    ".qmail-default has no vdelivermail": Change(NEW, NO, YES, put(DEFAULT, "&ann@x.example\n"), put(DEFAULT, BOUNCE)),
    ".qmail-default goes": Change(BOB, YES, NO, gone(DEFAULT), put(DEFAULT, BOUNCE)),
    ".qmail-NAME comes": Change(NEW, NO, YES, put(f"{DD}/.qmail-kim", "&ann\n"), gone(f"{DD}/.qmail-kim")),
    ".qmail-NAME wins over the account": Change(
        BOB, YES, NO, put(f"{DD}/.qmail-bob", "|exit 100\n"), gone(f"{DD}/.qmail-bob")
    ),
    "catch-all home's .qmail": Change(
        NEW, YES, NO, put(DOTQMAIL, "|exit 100\n"), gone(DOTQMAIL),
        lambda host: host.put(DEFAULT, f"|vdelivermail '' {host.at(HOME)}\n"),
    ),
    "domain's directory sticky": Change(BOB, YES, TEMPORARY, mode(DD, 0o1700), mode(DD, 0o700)),
    "domain's directory of somebody else": Change(BOB, YES, TEMPORARY, owner(DD, 0), owner(DD, UID)),
    "domain gone from users/cdb": Change(BOB, YES, NO, assigned(ALIAS), assigned(EXAMPLE, ALIAS)),
    "alias domain means another": Change(
        "kim@alias.example", NO, YES, assigned(EXAMPLE, ("alias.example", "b.example", UID)), assigned(EXAMPLE, ALIAS),
        steps(second_domain, lambda host: (host.home_of("b.example", "kim"), host.accounts("b.example", "kim"))),
    ),
    "domain's owner does not fit": Change(
        BOB, YES, TEMPORARY,
        lambda host: host.users(
            f"+example.com-:example.com:{UID}:{UID}:{{root}}/v/domains/example.com:-::",
            f"=example.com-bob:example.com:{UID + 1}:{UID}:{{root}}/v/open:-:bob:",
        ),
        assigned(EXAMPLE, ALIAS),
        lambda host: (
            host.directory("v/open", uid=UID + 1),
            host.file("v/open/.qmail-bob", "|vdelivermail '' bounce-no-mailbox\n", uid=UID + 1),
        ),
        scope=True,
    ),
    "virtualdomains line removed": Change(
        BOB, YES, NO, control("virtualdomains", ""), control("virtualdomains", VIRTUAL)
    ),
    "domain made local": Change(
        BOB, YES, NO, control("locals", "example.com\nexample.org\n"), control("locals", "example.org\n")
    ),
}  # fmt: skip

FULL = "100S\n999 1\n"

QUOTAS = {
    "maildirsize grows in place": Change(
        BOB, YES, TEMPORARY, appended(SIZE, b"990 0\n"), put(SIZE, "1000S\n1 1\n"),
        steps(accounts(QUOTA), put(SIZE, "1000S\n1 1\n"), message("m", 990)),
        kept=False, variables=(("CVM_VPOPMAIL_MESSAGE_BYTES", "100"),),
    ),
    "maildirsize gets old": Change(
        BOB, YES, TEMPORARY, aged(SIZE, OLD), aged(SIZE, 60),
        steps(accounts(QUOTA), put(SIZE, "1000S\n1 1\n"), message("m", 990)),
        kept=False, variables=(("CVM_VPOPMAIL_MESSAGE_BYTES", "100"),),
    ),
    "maildirsize gone": Change(
        BOB, YES, TEMPORARY, gone(SIZE), put(SIZE, "1000S\n1 1\n"),
        steps(accounts(QUOTA), put(SIZE, "1000S\n1 1\n"), message("m", 990)),
        kept=False, variables=(("CVM_VPOPMAIL_MESSAGE_BYTES", "100"),),
    ),
    "a message more": Change(
        BOB, YES, TEMPORARY, message("m", 990), gone(f"{MAILDIR}/new/m"), accounts(QUOTA),
        kept=False, variables=(("CVM_VPOPMAIL_MESSAGE_BYTES", "100"),),
    ),
    "quota of the account": Change(
        BOB, YES, TEMPORARY, accounts("bob::10S"), accounts("bob"), message("m", 990)
    ),
    "domain's limits": Change(
        BOB, YES, TEMPORARY,
        put(f"{DD}/.qmailadmin-limits", "maxmsgcount 1\n"), put(f"{DD}/.qmailadmin-limits", "maxmsgcount 2\n"),
        message("m", 990), kept=False, variables=(("CVM_VPOPMAIL_DOMAIN_QUOTAS", "1"),),
    ),
    "host's limits": Change(
        BOB, YES, TEMPORARY,
        lambda host: host.file("v/etc/vlimits.default", "maxmsgcount 1\n"),
        lambda host: host.file("v/etc/vlimits.default", "maxmsgcount 0\n"),
        steps(lambda host: host.directory("v/etc"), message("m", 990)),
        kept=False, variables=(("CVM_VPOPMAIL_DOMAIN_QUOTAS", "1"),),
    ),
    "host's default delivery": Change(
        BOB, YES, NO, control("defaultdelivery", "|exit 100\n"), control("defaultdelivery", "# nothing\n"),
        kept=False, variables=(("CVM_VPOPMAIL_DEFAULT_DELIVERY", "1"),),
    ),
}  # fmt: skip

CHANGES = ACCOUNTS | HOMES | DOMAINS | QUOTAS


def prepared(root: Path, change: Change) -> VpopmailHost:
    root.mkdir(exist_ok=True)
    host = vpopmail_host(root)
    if change.first is not None:
        change.first(host)
    return host


# -- asking -------------------------------------------------------------------------------------------


class World(NamedTuple):
    """A host, and a worker that looks at it."""

    host: VpopmailHost
    change: Change
    worker: Worker


def world(root: Path, change: Change, *, own: bool = False) -> World:
    """`own`: the module cvm-vpopmail, not the plug-in."""
    host = prepared(root, change)
    settings = Settings.from_environment(host.environment | dict(change.variables))
    make = module if own else lambda tables, settings: qmail(tables, settings, [plugin(tables, settings)])
    return World(host, change._replace(after=NO) if own and change.scope else change, Worker(settings, make))


@pytest.mark.peer("setfacl")
@pytest.mark.parametrize("name", CHANGES)
def test_at_once(name: str) -> None:
    change = CHANGES[name]
    with temporary_directory() as place:
        host, _, worker = world(place, change)
        there_and_back(host, change, worker.says, TURNS)


@pytest.fixture(scope="module", params=[False, True], ids=["plug-in", "module"])
def quiet(request: pytest.FixtureRequest) -> Iterator[dict[str, World]]:
    """A world for each change, in which nothing has happened for a while."""
    with temporary_directory() as place:
        made = {
            name: world(place / str(number), change, own=request.param)
            for number, (name, change) in enumerate(CHANGES.items())
        }
        until_old(host for host, _, _ in made.values())
        yield made
        made.clear()
        gc.collect()  # each watches for changes, and a user may have no more than some hundred such watches


@pytest.mark.peer("setfacl")
@pytest.mark.parametrize("name", CHANGES)
def test_when_all_is_quiet(name: str, quiet: dict[str, World]) -> None:
    host, change, worker = quiet[name]
    assert worker.says_often(change.address) == {change.before}
    assert worker.remembers(change.address) == (change.kept and change.before != TEMPORARY)
    change.there(host)
    assert worker.says_often(change.address) == {change.after}


def test_in_a_real_server_with_many_workers() -> None:
    with temporary_directory() as place:
        host = vpopmail_host(place)
        host.home_of(DD, "kim")
        with serving(host, CVM_WORKERS="3") as server:
            for turn in range(30):
                host.accounts(DD, *(("bob", "kim") if turn % 2 else ("bob",)))
                assert {server.ask("kim", DD).code for _ in range(6)} == {YES if turn % 2 else NO}


# -- the clock ----------------------------------------------------------------------------------------


def test_what_depends_on_the_clock_is_decided_again_though_no_file_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """maildirsize gets old by itself."""
    change = QUOTAS["maildirsize gets old"]
    with temporary_directory() as place:
        host, _, worker = world(place, change)
        until_old([host])
        assert worker.says_often(change.address) == {YES}
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + OLD)
        assert worker.says(change.address) == TEMPORARY
        monkeypatch.undo()
        assert worker.says(change.address) == YES
