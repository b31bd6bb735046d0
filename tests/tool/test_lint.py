"""cvmctl lint: each mistake planted in a sound host is found where it is, and in the sound host nothing."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hosts import ALIAS_UID, NOFILES, Host, a_folder, plain_host
from serving import environment

from cvm_qmail.settings import Settings
from cvm_qmail.tool import mistakes
from cvm_qmail.tool.lint import findings
from cvm_qmail.tool.mistakes import Finding, forwards
from cvm_vpopmail import people

pytestmark = pytest.mark.root

CVMCTL = Path(sys.executable).with_name("cvmctl")
ASSIGN = ("=ann:ann:5002:5002:{root}/home/ann:::", "+joe-:joe:5001:5001:{root}/home/joe:-::")


def lint(host: Host, *arguments: str, **more: str | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CVMCTL, "lint", *arguments],
        env=environment(host, more),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def sound() -> Iterator[Host]:
    """A host without a mistake."""
    with a_folder() as folder:
        yield make_sound(folder)


def make_sound(folder: Path) -> Host:
    host = plain_host(folder)
    host.control("rcpthosts", "example.org\nv.example\n.w.example\nnot.w.example\n")
    host.file("home/joe/.qmail-both", "# both\n./Maildir/\n&ann@example.org\nfriend@elsewhere.example\n", uid=5001)
    host.file("home/joe/.qmail-folder:x", "|forward ann\n|/bin/x nobody@example.org\n", uid=5001)
    return host


def assign(host: Host, *lines: str, newu: tuple[str, ...] | None = None, end: str = ".\n") -> None:
    """users/assign, and a users/cdb that is younger, of the same lines or those of `newu`."""
    host.file("users/assign", "".join(line.format(root=host.root) + "\n" for line in lines) + end)
    host.users(*(lines if newu is None else newu))
    os.utime(host.root / "users/assign", (1_000_000_000, 1_000_000_000))


def test_nothing_is_found_in_a_sound_host(sound: Host) -> None:
    done = lint(sound)
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing found\n", "")


def test_nor_in_one_with_users_cdb(sound: Host) -> None:
    assign(sound, *ASSIGN)
    done = lint(sound)
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing found\n", "")


# -- one mistake each -------------------------------------------------------------------------------------


def control(name: str, text: str) -> Callable[[Host], object]:
    return lambda host: host.control(name, text)


def folder(path: str) -> Callable[[Host], object]:
    def plant(host: Host) -> None:
        (host.root / path).unlink()
        host.folder(path)

    return plant


def dotqmail(name: str, text: str = "", mode: int = 0o644, uid: int = 5001) -> Callable[[Host], object]:
    return lambda host: host.file(f"home/joe/{name}", text, mode=mode, uid=uid)


def assigned(*lines: str, **how: object) -> Callable[[Host], object]:
    return lambda host: assign(host, *lines, **how)  # type: ignore[arg-type]


def link(host: Host) -> None:
    (host.root / "home/joe/.qmail-link").symlink_to("nowhere")


def stale(host: Host) -> None:
    assign(host, *ASSIGN)
    os.utime(host.root / "users/cdb", (1, 1))


def missing_cdb(host: Host) -> None:
    assign(host, *ASSIGN)
    (host.root / "users/cdb").unlink()


def cut_cdb(host: Host) -> None:
    assign(host, *ASSIGN)
    path = host.root / "users/cdb"
    path.write_bytes(path.read_bytes()[:-9])


def scribbled_cdb(host: Host) -> None:
    """The records are whole, but no search finds them."""
    assign(host, *ASSIGN)
    path = host.root / "users/cdb"
    data = path.read_bytes()
    end = int.from_bytes(data[:4], "little")
    path.write_bytes(data[:end] + bytes(len(data) - end))


def without_breaks(host: Host) -> None:
    from hosts import assign_records, cdb_bytes

    lines = [line.format(root=host.root) for line in ASSIGN]
    assign(host, *ASSIGN)
    (host.root / "users/cdb").write_bytes(cdb_bytes(assign_records(lines)[:-1]))


def no_alias(host: Host) -> None:
    path = host.root / "passwd"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("alias:")))


def account(line: str) -> Callable[[Host], object]:
    def plant(host: Host) -> None:
        with (host.root / "passwd").open("a") as out:
            out.write(line.format(root=host.root) + "\n")

    return plant


def home_mode(mode: int) -> Callable[[Host], object]:
    return lambda host: (host.root / "home/joe").chmod(mode)


def alias_file(name: str, text: str) -> Callable[[Host], object]:
    return lambda host: host.file(f"alias/{name}", text, uid=ALIAS_UID, gid=NOFILES)


def long_loop(host: Host) -> None:
    alias_file(".qmail-a", "&b@example.org\n")(host)
    alias_file(".qmail-b", "# on\n&c\n&c@example.org\n")(host)
    alias_file(".qmail-c", "|forward a@example.org\n")(host)


def morercpthosts(host: Host) -> None:
    host.control("morercpthosts", "example.org\n")


class Mistake(NamedTuple):
    """What is planted, and what is to be found of it."""

    name: str
    plant: Callable[[Host], object]
    kind: str
    file: str
    line: int | None
    along: tuple[str, ...] = ()
    """What it brings along."""


MISTAKES = [
    Mistake("me is a folder", folder("control/me"), "control-unreadable", "control/me", None),
    Mistake(
        "virtualdomains is a folder",
        folder("control/virtualdomains"),
        "control-unreadable",
        "control/virtualdomains",
        None,
    ),
    Mistake(
        "a carriage return", control("locals", "example.org\nx.example\r\n"), "control-syntax", "control/locals", 2
    ),
    Mistake("a blank in front", control("locals", "example.org\n x.example\n"), "control-syntax", "control/locals", 2),
    Mistake(
        "a comment behind",
        control("rcpthosts", "example.org # x\n"),
        "control-syntax",
        "control/rcpthosts",
        1,
        ("rcpthosts-not-ours",),
    ),
    Mistake("a NUL", control("locals", "example.org\0x.example\n"), "control-syntax", "control/locals", 1),
    Mistake(
        "a star",
        control("virtualdomains", "*.x.example:joe\n"),
        "control-syntax",
        "control/virtualdomains",
        1,
        ("rcpthosts-not-ours",),
    ),
    Mistake(
        "a wildcard in locals", control("locals", "example.org\n.x.example\n"), "control-syntax", "control/locals", 2
    ),
    Mistake(
        "an address in locals", control("locals", "example.org\njoe@x.example\n"), "control-syntax", "control/locals", 2
    ),
    Mistake(
        "no colon",
        control("virtualdomains", "# x\nv.example\n"),
        "control-syntax",
        "control/virtualdomains",
        2,
        ("rcpthosts-not-ours",),
    ),
    Mistake(
        "two values",
        control("virtualdomains", "v.example:ann\nV.example:joe\n.w.example:ann\n"),
        "virtualdomains-overridden",
        "control/virtualdomains",
        1,
    ),
    Mistake(
        "no such user",
        control("virtualdomains", "v.example:jo\n.w.example:ann\n"),
        "virtualdomains-no-user",
        "control/virtualdomains",
        1,
    ),
    Mistake(
        "no such address",
        control("virtualdomains", "x@v.example:joe-nope\n.w.example:ann\n"),
        "virtualdomains-no-user",
        "control/virtualdomains",
        1,
    ),
    Mistake(
        "local and virtual",
        control("virtualdomains", "v.example:joe\n.w.example:ann\nexample.org:ann\n"),
        "local-and-virtual",
        "control/virtualdomains",
        3,
    ),
    Mistake(
        "local, and virtual for one",
        control("virtualdomains", "v.example:joe\n.w.example:ann\nx@example.org:ann\n"),
        "local-and-virtual",
        "control/virtualdomains",
        3,
    ),
    Mistake(
        "neither local nor virtual",
        control("rcpthosts", "example.org\nx.example\n"),
        "rcpthosts-not-ours",
        "control/rcpthosts",
        2,
    ),
    Mistake(
        "nothing below is ours",
        control("rcpthosts", "example.org\n.x.example\n"),
        "rcpthosts-not-ours",
        "control/rcpthosts",
        2,
    ),
    Mistake(
        "no rcpthosts",
        lambda host: (host.root / "control/rcpthosts").unlink(),
        "rcpthosts-missing",
        "control/rcpthosts",
        None,
    ),
    Mistake("stale morercpthosts", morercpthosts, "morercpthosts-stale", "control/morercpthosts.cdb", None),
    Mistake("no final dot", assigned(*ASSIGN, end=""), "assign-syntax", "users/assign", None),
    Mistake("too few fields", assigned(*ASSIGN, "=x:joe:1", newu=ASSIGN), "assign-syntax", "users/assign", 3),
    Mistake("twice", assigned(*ASSIGN, ASSIGN[0]), "assign-duplicate", "users/assign", 3),
    Mistake(
        "a capital prefix",
        assigned(*ASSIGN, "+X:joe:5001:5001:{root}/home/joe:-::"),
        "assign-capital",
        "users/assign",
        3,
    ),
    Mistake("root", assigned(*ASSIGN, "=x:root:0:0:/root:::"), "assign-user", "users/assign", 3),
    Mistake("a relative home", assigned(*ASSIGN, "=x:joe:5001:5001:home/joe:::"), "assign-user", "users/assign", 3),
    Mistake("stale users/cdb", stale, "cdb-stale", "users/cdb", None),
    Mistake("no users/cdb", missing_cdb, "cdb-stale", "users/cdb", None),
    Mistake("another users/cdb", assigned(*ASSIGN, newu=ASSIGN[1:]), "cdb-different", "users/cdb", None),
    Mistake("a cut users/cdb", cut_cdb, "cdb-damaged", "users/cdb", None),
    Mistake("a scribbled users/cdb", scribbled_cdb, "cdb-damaged", "users/cdb", None),
    Mistake("no break list", without_breaks, "cdb-damaged", "users/cdb", None),
    Mistake("no alias", no_alias, "no-alias", "passwd", None),
    Mistake("another's home", account("eve:x:5009:5009::{root}/home/joe:/bin/sh"), "account-passed-over", "passwd", 6),
    Mistake("a capital account", account("Eve:x:5009:5009::/nowhere:/bin/sh"), "account-passed-over", "passwd", 6),
    Mistake("a long account", account(f"{'e' * 32}:x:5009:5009::/nowhere:/bin/sh"), "account-passed-over", "passwd", 6),
    Mistake("a writable home", home_mode(0o757), "home-writable", "home/joe", None),
    Mistake("a sticky home", home_mode(0o1755), "home-sticky", "home/joe", None),
    Mistake("a closed home", home_mode(0o055), "home-denied", "home/joe", None),
    Mistake(
        "a missing home",
        assigned(*ASSIGN, "=x:x:5009:5009:{root}/home/x:::"),
        "home",
        "home/x",
        None,
    ),
    Mistake("a writable file", dotqmail(".qmail-w", mode=0o646), "dotqmail-writable", "home/joe/.qmail-w", None),
    Mistake(
        "an unreadable file", dotqmail(".qmail-r", mode=0o600, uid=0), "dotqmail-denied", "home/joe/.qmail-r", None
    ),
    Mistake("a blank line", dotqmail(".qmail-b", " \n&ann\n"), "dotqmail-blank", "home/joe/.qmail-b", 1),
    Mistake(
        "a file line in a list",
        dotqmail(".qmail-f", "# x\nfriend@x.example\n./Maildir/\n", mode=0o744),
        "dotqmail-forward-only",
        "home/joe/.qmail-f",
        3,
    ),
    Mistake(
        "a program behind +list",
        dotqmail(".qmail-f", "|/bin/x\n+list\nfriend@x.example\n|/bin/y\n"),
        "dotqmail-forward-only",
        "home/joe/.qmail-f",
        4,
    ),
    Mistake("a capital name", dotqmail(".qmail-Foo"), "dotqmail-unreachable", "home/joe/.qmail-Foo", None),
    Mistake("a dotted name", dotqmail(".qmail-a.b"), "dotqmail-unreachable", "home/joe/.qmail-a.b", None),
    Mistake("a dangling link", link, "dotqmail-dangling", "home/joe/.qmail-link", None),
    Mistake(
        "a folder",
        lambda host: host.folder("home/joe/.qmail-x", uid=5001),
        "dotqmail-not-plain",
        "home/joe/.qmail-x",
        None,
    ),
    Mistake(
        "to nobody",
        dotqmail(".qmail-x", "# x\n&ann@example.org\nnobody@example.org\n"),
        "forward-to-nobody",
        "home/joe/.qmail-x",
        3,
    ),
    Mistake(
        "to nobody, by a program",
        dotqmail(".qmail-x", "|/var/qmail/bin/forward nobody@v.example ann@example.org\n"),
        "forward-to-nobody",
        "home/joe/.qmail-x",
        1,
    ),
    Mistake(
        "to oneself", dotqmail(".qmail-x", "./Maildir/\n&joe-x@example.org\n"), "forward-loop", "home/joe/.qmail-x", 2
    ),
    Mistake("round three files", long_loop, "forward-loop", "alias/.qmail-a", 1),
    Mistake(
        "a catch-all to itself",
        alias_file(".qmail-default", "&anybody@example.org\n"),
        "catch-all-loop",
        "alias/.qmail-default",
        1,
    ),
    Mistake(
        "no postmaster",
        lambda host: (host.root / "alias/.qmail-postmaster").unlink(),
        "no-postmaster",
        "control/locals",
        1,
    ),
]


def found(host: Host) -> list[Finding]:
    made, unknown = findings(Settings.from_environment(host.environment))
    assert not unknown
    return made


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
def test_a_planted_mistake_is_found_and_nothing_else(sound: Host, mistake: Mistake) -> None:
    mistake.plant(sound)
    made = [(finding.kind, finding.file, finding.line) for finding in found(sound)]
    assert (mistake.kind, f"{sound.root}/{mistake.file}".encode(), mistake.line) in made
    assert {kind for kind, _, _ in made} - {mistake.kind} == set(mistake.along)


def test_every_kind_of_finding_is_planted() -> None:
    tree = ast.parse(Path(mistakes.__file__).read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding"]
    kinds = {
        word.value
        for call in calls
        for word in ast.walk(call.args[0])
        if isinstance(word, ast.Constant) and isinstance(word.value, str)
    }
    assert kinds - {mistake.kind for mistake in MISTAKES} == ADDED


def test_every_kind_of_finding_is_explained_on_its_page() -> None:
    page = (Path(__file__).parents[2] / "docs/cvmctl.md").read_text()
    section = page.partition("\n## lint\n")[2].partition("\n## ")[0]
    table = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    explained = {word for cell in table for word in re.findall("`([a-z-]+)`", cell)}
    sources = [Path(module.__file__).read_text() for module in (mistakes, people)]
    calls = [node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    first = [word for call in calls if ast.unparse(call.func) == "Finding" for word in ast.walk(call.args[0])]
    said = {word.value for word in first if isinstance(word, ast.Constant) and isinstance(word.value, str)}
    assert explained == said | {mistake.kind for mistake in MISTAKES}


ADDED = {"control-me-missing"}
"""Kinds that have a test of their own."""


def test_neither_me_nor_locals(sound: Host) -> None:
    (sound.root / "control/me").unlink()
    (sound.root / "control/locals").unlink()
    assert found(sound)[0][:3] == ("control-me-missing", f"{sound.root}/control/me".encode(), None)


# -- how it is told -----------------------------------------------------------------------------------


def test_a_finding_has_place_consequence_and_remedy(sound: Host) -> None:
    sound.control("locals", "example.org\nx.example\r\n")
    done = lint(sound)
    assert done.returncode == 1
    assert done.stdout.replace(str(sound.root), "") == (
        "/control/locals line 2: ends in a carriage return, which becomes part of the entry\n"
        "  x.example is not found in it\n"
        "  remedy: mend the line and send qmail-send HUP\n"
        "  control-syntax\n"
        "1 found\n"
    )


def test_json_has_one_object_a_line(sound: Host) -> None:
    (sound.root / "home/joe").chmod(0o757)
    done = lint(sound, "--json")
    (finding,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert finding["kind"] == "home-writable"
    assert finding["file"] == f"{sound.root}/home/joe"
    assert set(finding) == set(Finding._fields)


def test_what_cannot_be_told_is_no_clean_bill(sound: Host) -> None:
    (sound.root / "passwd").unlink()
    sound.folder("passwd")
    done = lint(sound)
    assert done.returncode == 111
    assert f"could not tell: passwd {sound.root}/passwd" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.peer("setpriv")
def test_without_rights_it_says_what_it_could_not_see(sound: Host) -> None:
    (sound.root / "home/joe").chmod(0o700)
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", CVMCTL, "lint"],
        env=environment(sound, {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 111
    assert "not root" in done.stderr
    assert f"could not tell: refused {sound.root}/home/joe Permission denied" in done.stderr


def test_odd_names_are_escaped(sound: Host) -> None:
    (sound.root / "home/joe/.qmail-\x1b[2JX").write_bytes(b"")
    done = lint(sound)
    assert ".qmail-\\x1b[2JX: its name has a capital letter" in done.stdout
    assert "\x1b" not in done.stdout


def test_forwards_are_read_as_qmail_local_reads_them() -> None:
    lines = [b"# a@x", b"&b@x", b"c@x", b" d@x", b"./e@x", b"/f@x", b"|g h@x", b"|forward i@x j"]
    lines += [b"|/usr/bin/forward $K@x", b'|forward "l@x"', b"+m@x", b"", b"n", b""]
    content = b"\n".join(lines)
    found = [(at, recipient.address) for at, recipient in forwards(content)]
    assert found == [(2, b"b@x"), (3, b"c@x"), (4, b" d@x"), (8, b"i@x"), (8, b"j"), (13, b"n")]
