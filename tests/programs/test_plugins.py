"""The programs that come with qmail, and by which names programs are known."""

from __future__ import annotations

import subprocess
import sys

import pytest
from disk import Disk
from phosts import HOME, delivery, looking, running

from cvm_qmail.plugin import Delivery, Ran
from cvm_qmail.programs.plugins import fastforward, qmail
from cvm_qmail.settings import Settings


def status(command: bytes, disk: Disk | None = None) -> int | None:
    to = delivery("x", runs=running(qmail, disk))
    ran = to.shell(command)
    return None if ran is None else ran.status


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (b"true", 0),
        (b"/bin/true", 0),
        (b"/usr/bin/false", 1),
        (b"false x", 1),
        (b"/var/qmail/bin/true", None),
        (b"exec false", 1),
        (b"unknown", None),
        (b"bouncesaying", 100),
        (b"bouncesaying no", 100),
        (b"bouncesaying ''", 100),
        (b"bouncesaying no true", 100),
        (b"bouncesaying no false", 0),
        (b"bouncesaying no unknown", 0),
        (b"bouncesaying no exit 0", 0),
        (b"bouncesaying no except true", 0),
        (b"bouncesaying no except false", 100),
        (b"condredirect", 100),
        (b"condredirect joe@x", 100),
        (b"condredirect joe@x true", 99),
        (b"condredirect joe@x false", 0),
        (b"condredirect joe@x bouncesaying no", 0),
        (b"condredirect joe@x unknown", None),
        (b"except", 100),
        (b"except true", 100),
        (b"except false", 0),
        (b"except unknown", 0),
        (b"except condredirect joe@x true", 0),
        (b"forward", 0),
        (b"forward joe@x ann@x", 0),
        (b"preline", 100),
        (b"preline -x true", 100),
        (b"preline -dDfFrR true", 0),
        (b"preline -- false", 1),
        (b"preline unknown", None),
        (b"preline bouncesaying no", None),
        (b"bouncesaying no test -f x", 0),
        (b"bouncesaying no; true", None),
        (b'bouncesaying "$SENDER"', None),
        (b'bouncesaying "$EXT"', 100),
        (b"except " * 50 + b"true", 0),
        (b"except " * 51 + b"true", 100),
        (b"except " * 1000 + b"true", None),
    ],
)
def test_what_a_command_exits_with(command: bytes, expected: int | None) -> None:
    assert status(command) == expected


@pytest.mark.parametrize(
    "directory",
    ["/var/qmail/bin", "/var/lib/qmail/bin", "/usr/bin", "/usr/local/bin", "/usr/sbin", "/var/qmail/./bin/../bin/"],
)
def test_the_directories_where_qmails_programs_are_kept(directory: str) -> None:
    assert status(f"{directory}/bouncesaying no".encode()) == 100


def test_the_directory_below_the_qmail_home() -> None:
    run = qmail(looking(Disk()), Settings.from_environment({"QMAIL_ROOT": "/opt/qmail"})).run
    assert run is not None
    assert delivery(runs=(run,)).shell(b"/opt/qmail/bin/bouncesaying no") == Ran(100, "bouncesaying")


@pytest.mark.parametrize("path", ["/opt/bin/except", "bin/except", "./except", "/bin/except"])
def test_elsewhere_it_is_another_program_or_none(path: str) -> None:
    command = f"{path} true".encode()
    assert status(command) == 127
    disk = Disk()
    disk.file(path.encode() if path.startswith("/") else HOME + b"/" + path.removeprefix("./").encode(), mode=0o755)
    assert status(command, disk) is None


def test_a_program_of_another_plug_in_is_known_to_those_that_run_it() -> None:
    disk = Disk()
    to = delivery("x", runs=(*running(qmail, disk), *running(fastforward, disk)))
    assert to.shell(b"except fastforward -x") == Ran(0)


@pytest.mark.parametrize(
    ("ext", "is_default", "expected"),
    [("a-b", True, b"a-b"), ("Default", False, b"Default"), ("x-default", False, b"default"), ("a", False, None)],
)
def test_what_stands_in_the_place_of_default(ext: str, is_default: bool, expected: bytes | None) -> None:
    to: Delivery = delivery(ext, default=is_default)
    assert to.default == expected
    assert to.variables.get(b"DEFAULT") == expected


def test_what_an_address_does_not_need_is_not_imported() -> None:
    code = "import sys, cvm_qmail.programs.plugins; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {name for name in imported if name.startswith("cvm_qmail.programs.")} == {"cvm_qmail.programs.plugins"}
    assert not imported & {"cvm_qmail.rules.program_line", "cvm_qmail.rules.instructions"}
