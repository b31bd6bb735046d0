"""What the shell would run for a program line."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hosts import temporary_directory
from hypothesis import example, given
from hypothesis import strategies as st

from cvm_qmail.rules.program_line import OPAQUE, builtin_status, deciding, simple

VARIABLES = {b"EXT": b"a b", b"HOME": b"/home/joe", b"DEFAULT": b"", b"HOST": b"$x"}


def words(command: bytes) -> list[bytes] | None:
    understood = simple(command, VARIABLES)
    return None if understood is None else list(understood.words)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (b"", []),
        (b" \t ", []),
        (b" fastforward\t-d  t.cdb ", [b"fastforward", b"-d", b"t.cdb"]),
        (b"bouncesaying 'no such person'", [b"bouncesaying", b"no such person"]),
        (b'bouncesaying "it\'s" "a \\"quoted\\" \\$5 \\n"', [b"bouncesaying", b"it's", b'a "quoted" $5 \\n']),
        (b"bouncesaying no\\ more", [b"bouncesaying", b"no more"]),
        (b'"fast"forward \'\' ""', [b"fastforward", b"", b""]),
        (b'fastforward "$HOME/t.cdb" "${EXT}x" "$DEFAULT"', [b"fastforward", b"/home/joe/t.cdb", b"a bx", b""]),
        (b'echo "$HOST"', [b"echo", b"$x"]),
        (b"exec true", [b"true"]),
        (b"exec", []),
        (b"true\0; exit 100", [b"true"]),
        (b"a=b", None),
        (b"A=b true", None),
        (b"true A=b", [b"true", b"A=b"]),
        (b"'A=b' true", [b"A=b", b"true"]),
        (b"if true", None),
        (b"true $EXT", None),
        (b'true "$SENDER"', None),
        (b'true "$EXT2"', None),
        (b'true "${EXT:-x}"', None),
        (b'true "$1"', None),
        (b'true "$(id)"', None),
        (b'true "`id`"', None),
        (b"true 'open", None),
        (b'true "open', None),
        (b"true \\", None),
        *((b"true %c" % sign, None) for sign in b"`;&|<>(){}*?[~#!$\n"),
        *((b"true '%c' \\%c" % (sign, sign), [b"true", b"%c" % sign, b"%c" % sign]) for sign in b"`;&|<>(){}*?[~#!$"),
    ],
)
def test_the_words_of_a_simple_command(command: bytes, expected: list[bytes] | None) -> None:
    assert words(command) == expected


def test_a_long_command_is_not_looked_at() -> None:
    assert words(b"true " + b"x" * 8187) is not None
    assert words(b"true " + b"x" * 8188) is None


def test_a_hostile_command_is_judged_in_linear_time() -> None:
    assert words(b"a" * 8000 + b";") is None
    assert words(b"\"'" * 4000 + b"'") is None
    assert words(b'"\\' * 4000) is None


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (b"", 0),
        (b":", 0),
        (b": 100", 0),
        (b"exit", 0),
        (b"exit 100", 100),
        (b'exit 1"00"', 100),
        (b"\\exit 0100", 100),
        (b"exit ' 99\r'", 99),
        (b"exit +99", 99),
        (b"exit 256", 0),
        (b"exit 355", 99),
        (b"exit x", 2),
        (b"exit ''", 2),
        (b"exit -1", 2),
        (b"exit 99x", 2),
        (b"exec exit 100", 127),
        (b"exec :", 127),
        (b"exit -157", None),
        (b"exit -- 5", None),
        (b"exit 4294967296", None),
        (b"exit 99999999999999999999", None),
        (b"true", None),
    ],
)
def test_the_status_of_what_the_shell_does_itself(command: bytes, status: int | None) -> None:
    understood = simple(command, {})
    assert understood is not None
    assert builtin_status(understood) == status


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (b"A=b env C=d preline -f prog a 2>/dev/null", [b"prog", b"a"]),
        (b"spamc | prog $EXT # comment", [b"prog", OPAQUE]),
        (b"prog a\\\nb 'c\nd'", [b"prog", b"ab", b"c\nd"]),
        (b"prog a && true", None),
        (b"EXT=x prog", None),
    ],
)
def test_the_program_that_decides(command: bytes, expected: list[bytes] | None) -> None:
    understood = deciding(command)
    assert (None if understood is None else list(understood)) == expected


# -- beside the shell ---------------------------------------------------------------------------------

pieces = st.sampled_from(
    ["a", "b c", " ", "\t", "'", '"', "\\", "''", '""', "'x y'", '"x y"', '"$EXT"', '"${EXT}"', '"\\$"', "$", "=", "A="]
)


@given(st.lists(pieces, max_size=8).map("".join))
@example("\"$EXT\"'$EXT'\\$EXT")
@example('"a\\b\\"c"')
@example("a\\\tb")
def test_the_shell_splits_a_simple_command_alike(text: str) -> None:
    command = b"show x" + text.encode()
    understood = words(command)
    if understood is None:
        return
    with temporary_directory() as directory:
        show = Path(directory) / "show"
        show.write_text("#!/bin/sh\nprintf '%s\\0' show \"$@\"\n")
        show.chmod(0o755)
        variables = {name.decode(): value.decode() for name, value in VARIABLES.items()}
        environment = {**os.environ, **variables, "PATH": f"{directory}:{os.environ['PATH']}"}
        done = subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, check=True)
    assert done.stdout.split(b"\0")[:-1] == understood


@given(st.one_of(st.integers(-400, 400).map(str), st.text(st.sampled_from("0123456789+- x\r\t"), max_size=4)))
def test_the_shell_exits_alike(argument: str) -> None:
    understood = simple(b"exit '%s'" % argument.encode(), {})
    assert understood is not None
    status = builtin_status(understood)
    done = subprocess.run(["/bin/sh", "-c", f"exit '{argument}'"], capture_output=True, check=False)
    assert status in (None, done.returncode)
