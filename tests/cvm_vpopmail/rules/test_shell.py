"""Which program a line runs, without running it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvm_qmail.rules.program_line import OPAQUE
from cvm_vpopmail.rules.shell import exit_status, vdelivermail

PATH = b"/home/vpopmail/bin/vdelivermail"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (b" PATH '' bounce-no-mailbox", [b"", b"bounce-no-mailbox"]),
        (b"PATH '' \"bounce-no-mailbox\"", [b"", b"bounce-no-mailbox"]),
        (b"PATH \"\" 'a b'", [b"", b"a b"]),
        (b"PATH '' it\\'s", [b"", b"it's"]),
        (b"PATH '' joe'@'example.org", [b"", b"joe@example.org"]),
        (b"PATH '' '|exit 0'", [b"", b"|exit 0"]),
        (b"PATH '' \"a\\$b\"", [b"", b"a$b"]),
        (b"PATH", []),
        (b"PATH ''", [b""]),
        (b"PATH '' delete x", [b"", b"delete", b"x"]),
        (b"preline PATH '' delete", [b"", b"delete"]),
        (b"/var/qmail/bin/preline -d PATH '' delete", [b"", b"delete"]),
        (b"exec PATH '' delete", [b"", b"delete"]),
        (b"env A=b PATH '' delete", [b"", b"delete"]),
        (b"VERBOSE=1 PATH '' delete", [b"", b"delete"]),
        (b"/usr/bin/spamc | PATH '' delete", [b"", b"delete"]),
        (b"PATH '' delete 2>/dev/null", [b"", b"delete"]),
        (b"PATH '' delete >> /tmp/log 2>&1", [b"", b"delete"]),
        (b"PATH '' delete # as made by vadddomain", [b"", b"delete"]),
        (b"PATH '' delete;", [b"", b"delete"]),
        (b"vdelivermail '' delete", [b"", b"delete"]),
        (b"PATH '' $EXT@example.org", [b"", OPAQUE]),
        (b"PATH '' *", [b"", OPAQUE]),
    ],
)
def test_what_vdelivermail_is_given(command: bytes, arguments: list[bytes]) -> None:
    understood = vdelivermail(command.replace(b"PATH", PATH))
    assert understood is not None
    assert list(understood) == arguments


@pytest.mark.parametrize(
    "command",
    [
        b"",
        b"true",
        b"/usr/bin/autorespond 10000 5 PATH x",
        b"PATH '' delete | /bin/cat",
        b"PATH '' delete && true",
        b"PATH '' delete || true",
        b"PATH '' delete; exit 100",
        b"(PATH '' delete)",
        b"if true; then PATH '' delete; fi",
        b"! PATH '' delete",
        b"EXT=joe PATH '' delete",
        b"PATH '' 'delete",
        b"echo PATH '' delete",
        b"PATH '' delete & ",
        b"PATH '' `cat x`",
        b'PATH \'\' "$(cat "x")"',
        b"PATH '' " + b"x" * 9000,
    ],
)
def test_what_is_some_other_program(command: bytes) -> None:
    assert vdelivermail(command.replace(b"PATH", PATH)) is None


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (b"exit 0", 0),
        (b" exit 99 ", 99),
        (b"exit 100;", 100),
        (b"exit", 0),
        (b"exit 256", 0),
        (b"exit 1 2", None),
        (b"exit -1", None),
        (b"exit $X", None),
        (b"exitus 100", None),
        (b"true", None),
    ],
)
def test_a_command_that_only_exits(command: bytes, status: int | None) -> None:
    assert exit_status(command) == status


WORDS = st.lists(
    st.text(alphabet="ab'\"\\ |&;()<>#-=/.@\t$*!{}~0129", max_size=12).map(lambda text: text.encode()), max_size=4
)


@given(WORDS)
def test_what_is_understood_the_shell_understands_so_too(
    tmp_path_factory: pytest.TempPathFactory, words: list[bytes]
) -> None:
    """The real /bin/sh runs a vdelivermail that writes its arguments down."""
    directory = tmp_path_factory.getbasetemp() / "shell"
    program = _recorder(directory)
    command = os.fsencode(program) + b" " + b" ".join(words)
    understood = vdelivermail(command)
    if understood is None or OPAQUE in understood:
        return
    given = directory / "given"
    given.unlink(missing_ok=True)
    for path in directory.iterdir():
        if path.name not in ("vdelivermail", "given"):
            path.unlink()
    subprocess.run(
        [b"/bin/sh", b"-c", command],
        cwd=directory,
        capture_output=True,
        check=False,
        timeout=10,
        stdin=subprocess.DEVNULL,
    )
    if given.exists():  # a redirection may have failed
        assert given.read_bytes().split(b"\0")[:-1] == list(understood)


def _recorder(directory: Path) -> Path:
    program = directory / "vdelivermail"
    if not program.exists():
        directory.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nfor word do printf "%s\\0" "$word"; done > {directory}/given\n')
        program.chmod(0o755)
    return program
