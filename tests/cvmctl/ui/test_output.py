"""What people see: escaped once, plain in a pipe, never markup."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest

from cvm_qmail.cvmctl.ui import output
from cvm_qmail.cvmctl.ui.output import Failure, Node, text

ODD = text(b"\x1b[2J\xff[red]\\") + "\u202e"
ESCAPED = "\\x1b[2J\\xff[red]\\x5c\\xe2\\x80\\xae"


def test_a_tree_is_indented_lines_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    output.tree([Node("a", "title", [Node("b", "no", [Node(ODD)]), Node("c")]), Node("d")])
    assert capsys.readouterr().out == f"a\n  b\n    {ESCAPED}\n  c\nd\n"


def test_a_table_is_aligned_columns_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("word", "number"), [("x", "7"), (ODD, "12345678")], right=("number",))
    width = len(ESCAPED)
    assert capsys.readouterr().out.splitlines() == [
        f"{'word':{width}}    number",
        f"{'x':{width}}         7",
        f"{ESCAPED}  12345678",
    ]


def test_json_is_one_line_of_ascii_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    output.json_line({ODD: [ODD, b"\xff", 1, None, True, {"a": (1.5,)}]})
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.count("\n") == 1
    assert json.loads(out) == {ESCAPED: [ESCAPED, "\\xff", 1, None, True, {"a": [1.5]}]}


def test_a_line_and_a_warning_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    output.line(ODD, "yes")
    output.warn(ODD)
    assert capsys.readouterr() == (f"{ESCAPED}\n", f"cvmctl: {ESCAPED}\n")


def test_what_a_log_has_escaped_is_not_escaped_again(capsys: pytest.CaptureFixture[str]) -> None:
    output.log_line(f"a\\x01\\x5c {ODD}")
    assert capsys.readouterr().out == "a\\x01\\x5c \\x1b[2J\\xff[red]\\\\xe2\\x80\\xae\n"


def test_a_failure_says_what_and_ends_with_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    failure = Failure(ODD, 111)
    failure.show()
    assert failure.exit_code == 111
    assert capsys.readouterr().err == f"cvmctl: {ESCAPED}\n"


PROGRAM = """
from cvm_qmail.cvmctl.ui import output as show
from cvm_qmail.cvmctl.ui.output import Node
odd = "\\x1b[2J[red]"
show.tree([Node(odd, "no", [Node("below")])])
show.line(odd, "yes")
show.table(("word",), [(odd,)])
"""


def on_a_terminal(**more: str) -> str:
    parent, child = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **more}
    subprocess.run([sys.executable, "-c", PROGRAM], env=env, stdout=child, check=True, timeout=30)
    os.close(child)
    got = b""
    try:
        while data := os.read(parent, 65536):
            got += data
    except OSError:
        pass  # nobody holds the other end any more
    finally:
        os.close(parent)
    return got.decode()


def test_on_a_terminal_there_is_colour_but_nothing_from_outside_is_obeyed() -> None:
    got = on_a_terminal()
    assert got.count("\\x1b[2J[red]") == 3
    assert "\x1b[2J" not in got
    assert "\x1b[1;31m" in got
    assert "└── " in got


def test_no_color_and_a_dumb_terminal_are_respected() -> None:
    assert "31m" not in on_a_terminal(NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(TERM="dumb")
