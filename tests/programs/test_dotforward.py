"""dot-forward with files of a dict, and beside the real one on files of any bytes."""

from __future__ import annotations

import os
import subprocess

import pytest
from disk import Disk
from hosts import temporary_directory
from hypothesis import example, given
from hypothesis import strategies as st
from phosts import HOME, OWNER, code, delivery, looking, running

from cvm_qmail.programs.dotforward import LIMIT, Unparsable, parse, program
from cvm_qmail.programs.plugins import qmail


def exits(content: bytes | None, *more: bytes, words: tuple[bytes, ...] = (b".forward",)) -> int | None:
    disk = Disk()
    disk.directory(HOME, uid=OWNER.uid)
    for name, data in zip((b".forward", b"second", b"third"), (content, *more), strict=False):
        if data is not None:
            disk.file(b"%s/%s" % (HOME, name), data, uid=OWNER.uid)
    return code(program, words, delivery("x", runs=running(qmail, disk)), looking(disk))


@pytest.mark.parametrize(
    ("line", "addresses"),
    [
        (b"ann@x\n", [b"ann@x"]),
        (b"ann, bob fred\n", [b"fred", b"bob", b"ann"]),
        (b"Ann Smith <ann@x>, bob\n", [b"bob", b"ann@x"]),
        (b"ann (at work) @ x . example\r\n", [b"ann@x.example"]),
        (b'"spaced out"@x "|cmd a"\n', [b"|cmd a", b"spaced out@x"]),
        (b"\\ann a\\,b\n", [b"a,b", b"ann"]),
        (b"group: ann, bob;\n", [b"bob", b"ann", b"group"]),
        (b"<@relay:ann@x>\n", [b"@relay:ann@x"]),
        (b"ann@[10.0.0.1]\n", [b"ann@[10.0.0.1]"]),
        (b"<> () ,;:\n", []),
        (b"\n", []),
    ],
)
def test_the_addresses_of_a_line_from_right_to_left(line: bytes, addresses: list[bytes]) -> None:
    assert [address for _, address in parse(line) if address] == addresses


@pytest.mark.parametrize("line", [b'"open\n', b"(open\n", b"[open\n", b"ann>\n", b"(a(b)\n", b")\n", b"]\n"])
def test_a_line_without_its_other_end_is_no_list_of_addresses(line: bytes) -> None:
    with pytest.raises(Unparsable):
        list(parse(line))


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"ann@far.example\n", 99),
        (b"joe\n", 0),
        (b"\\JOE, ann@far.example\n", 0),
        (b"Joe@EXAMPLE.org\n", 0),
        (b"joe@far.example\n", 99),
        (b"joe-x\n", 99),
        (b"# nothing\n\n", 0),
        (b"", 0),
        (None, 0),
        (b"/var/mail/joe\n", 111),
        (b"/var/mail/joe@x\n", 99),
        (b'"|true"\n', 99),
        (b'"|true", joe\n', 0),
        (b'"|exit 100"\n', 100),
        (b'"|exit 77"\n', 100),
        (b'"|exit 99"\n', 111),
        (b'"|false"\n', 111),
        (b'"|vacation joe"\n', None),
        (b'"|/no/such/program joe"\n', 111),
        (b"\"|IFS=' ' && exec /usr/bin/procmail\"\n", None),
        (b'"|exit 100"\n"open\n', 100),
        (b'"|vacation joe"\n"open\n', None),
        (b'"open\n"|exit 100"\n', 111),
        (b'ann> "|exit 100"\n', 100),
        (b'"|exit 100" ann>\n', 111),
    ],
)
def test_what_comes_of_a_file(content: bytes | None, status: int | None) -> None:
    assert exits(content) == status


def test_the_first_file_with_an_address_counts() -> None:
    words = (b".forward", b"second", b"third")
    assert exits(None, b"# none\n", b"ann@x\n", words=words) == 99
    assert exits(b"joe\n", b'"open\n', words=words) == 0
    assert exits(None, words=words) == 0


@pytest.mark.parametrize(
    ("words", "status"),
    [((), 100), ((b"-n",), 100), ((b"-x", b".forward"), 100), ((b"-nN", b"--", b".forward"), 99), ((b"-",), 0)],
)
def test_usage(words: tuple[bytes, ...], status: int) -> None:
    assert exits(b"ann@x\n", words=words) == status


def test_a_file_that_its_user_may_not_read_defers() -> None:
    disk = Disk()
    disk.file(HOME + b"/.forward", b"ann@x\n", mode=0o600)
    assert code(program, [b".forward"], delivery(), looking(disk)) == 111


def test_a_directory_defers() -> None:
    disk = Disk()
    disk.directory(HOME + b"/.forward")
    assert code(program, [b".forward"], delivery(), looking(disk)) == 111


def test_more_than_a_bounded_file_is_not_parsed() -> None:
    assert exits(b"ann@far.example\n" * (LIMIT // 16 + 1)) is None


def test_deep_comments_and_long_lines_are_parsed_in_bounded_time() -> None:
    assert exits(b"(" * (LIMIT - 1)) == 111
    assert exits(b"a " * (LIMIT // 2)) == 99
    assert exits(b'"\\' * (LIMIT // 2)) == 111


# -- beside the real program --------------------------------------------------------------------------

pieces = st.one_of(
    st.sampled_from(["joe", "JOE", "ann", "example.org", "EXAMPLE.org", "far.example", '"|true"', '"joe"', '"a b"']),
    st.sampled_from([*'@@@,,.:;<>()[]"\\ \t\n\n#/', "\r\n", "\n#", "<>", "(c)", "joe@example.org", "[1.2.3.4]"]),
    st.text(st.characters(min_codepoint=1, max_codepoint=255, exclude_characters="|/"), max_size=4),
)
files = st.lists(pieces, max_size=14).map("".join)


@pytest.mark.peer("dot-forward")
@given(files)
@example("joe@example.org")
@example("ann <joe>, (x) joe@ example.org\n")
@example("x@y <z>\n")
@example("a)b\n")
@example("a]b\n")
@example("[a\\]b]\n")
@example("(a\\)b)\n")
@example('"a\\"b"\n')
@example("\\")
@example('"joe"@"example.org"\n')
@example("joe\\@example.org\n")
@example("<joe")
@example("[joe] <a>\n")
def test_as_the_real_one(text: str) -> None:
    content = text.encode("latin-1")
    to = delivery("x")
    variables = {name.decode(): value.decode() for name, value in to.variables.items()}
    with temporary_directory() as directory:
        (directory / ".forward").write_bytes(content)
        real = subprocess.run(
            ["dot-forward", "-n", ".forward"],
            cwd=directory,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    ours = exits(content)
    assert ours == real.returncode or (ours is None and "|" in text), (
        real
    )  # None: a program that only a run could judge
