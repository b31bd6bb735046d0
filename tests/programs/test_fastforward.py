"""fastforward with tables of dicts, and beside the real one on tables that setforward compiled."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import strategies
from disk import Disk
from hosts import temporary_directory
from hypothesis import example, given, settings
from hypothesis import strategies as st
from phosts import HOME, OWNER, code, delivery, looking, table

from cvm_qmail.answer import Unavailable
from cvm_qmail.plugin import Delivery
from cvm_qmail.programs.fastforward import STEPS, Places, handles, program

A, LIST, PROGRAM = b"&b@far.example\0", b"./list.bin\0", b"|exit 0\0"


def nothing(path: bytes) -> bytes:
    raise AssertionError(f"no list is asked for: {path!r}")


def said(records: dict[bytes, bytes], target: bytes = b"joe@example.org", **lists: bytes) -> bool | None:
    def read(path: bytes) -> bytes:
        content = lists.get(path.removeprefix(b"./").removesuffix(b".bin").decode())
        if content is None:
            raise Unavailable("no-list", "", path)
        return content

    handled = handles(target, Places(records, read if lists else nothing))
    return None if handled is None else handled.found


# -- what handles a target ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (b":joe@example.org", True),
        (b":@example.org", True),
        (b":joe@", True),
        (b":joe", False),
        (b":@", False),
        (b"joe@example.org", False),
        (b"?joe@example.org", False),
        (b":JOE@example.org", False),
    ],
)
def test_a_target_is_sought_exactly_then_by_domain_then_by_user(key: bytes, found: bool) -> None:
    assert said({key: A}) is found


def test_the_last_at_sign_divides_a_target() -> None:
    assert said({b":@example.org": A}, b"a@b@example.org") is True
    assert said({b":a@b@": A}, b"a@b@example.org") is True
    assert said({b":a@": A}, b"a@b@example.org") is False


def test_the_first_key_that_is_there_counts_even_without_a_command() -> None:
    assert said({b":joe@example.org": b"", b":@example.org": LIST}) is True


def test_what_is_not_ended_by_nul_is_no_command() -> None:
    assert said({b":joe@example.org": LIST[:-1]}) is True


def test_a_nested_target_is_sought_without_the_wildcards() -> None:
    nested = {b":joe@example.org": b"&ann@example.org\0", b":@example.org": LIST, b":ann@": LIST}
    assert said(nested) is True
    with pytest.raises(Unavailable):
        said({b":joe@example.org": b"&ANN@example.org\0", b":ann@example.org": LIST}, other=b"")


def test_a_loop_ends_where_it_comes_back() -> None:
    assert said({b":joe@example.org": b"&ann@x\0", b":ann@x": b"&Joe@Example.org\0&ann@x\0"}) is True


def test_a_program_that_is_reached_leaves_it_to_a_run() -> None:
    assert said({b":joe@example.org": PROGRAM}) is None
    assert said({b":joe@example.org": b"!exit 100\0"}) is None
    assert said({b":joe@example.org": b"&ann@x\0", b":ann@x": PROGRAM}) is None


def test_a_program_that_is_reached_counts_more_than_a_list_that_is_not_there() -> None:
    assert said({b":joe@example.org": LIST + b"&ann@x\0", b":ann@x": PROGRAM}, other=b"") is None


def test_a_list_forwards_and_names_lists_but_runs_nothing() -> None:
    lists = {"list": b"&ann@x\0|exit 100\0!exit 100\0text\0\0./more.bin\0", "more": b"&bob@x"}
    assert said({b":joe@example.org": LIST}, **lists) is True
    with pytest.raises(Unavailable):
        said({b":joe@example.org": LIST}, list=lists["list"])


def test_a_list_may_name_a_target_with_a_program() -> None:
    assert said({b":joe@example.org": LIST, b":ann@x": PROGRAM}, list=b"&ann@x\0") is None


def test_ten_thousand_nested_targets_are_not_all_followed() -> None:
    chain = {b":%d@x" % n: b"&%d@x\0" % (n + 1) for n in range(STEPS + 10)}
    assert said({**chain, b":joe@example.org": b"&0@x\0"}) is None


# -- the program --------------------------------------------------------------------------------------

TABLE = table({b":a@example.org": A, b":joe-a@example.org": A, b":a@far": A})


def disk_with(**files: bytes) -> Disk:
    disk = Disk()
    disk.directory(HOME, uid=OWNER.uid)
    for name, content in files.items():
        disk.file(b"%s/%s" % (HOME, name.replace("_", ".").encode()), content, uid=OWNER.uid)
    return disk


def exits(*words: bytes, ext: str = "a", default: bool = True, disk: Disk | None = None) -> int | None:
    tables = looking(disk or disk_with(t_cdb=TABLE))
    return code(program, words, delivery(ext, default=default), tables)


@pytest.mark.parametrize(
    ("words", "found", "missing"),
    [
        ([b"t.cdb"], 0, 100),
        ([b"./t.cdb"], 0, 100),
        ([HOME + b"/t.cdb"], 0, 100),
        ([b"-p", b"t.cdb"], 99, 0),
        ([b"-nNpPdD", b"t.cdb"], 0, 100),
        ([b"-d", b"-p", b"t.cdb"], 99, 0),
        ([b"-dp", b"--", b"t.cdb", b"more"], 99, 0),
        ([b"-pPp", b"t.cdb"], 99, 0),
        ([], 100, 100),
        ([b"-p"], 100, 100),
        ([b"-x", b"t.cdb"], 100, 100),
        ([b"-p-", b"t.cdb"], 100, 100),
        ([b"-", b"t.cdb"], 111, 111),
        ([b"none.cdb"], 111, 111),
        ([b"."], 111, 111),
    ],
)
def test_options_and_usage(words: list[bytes], found: int, missing: int) -> None:
    assert (exits(*words), exits(*words, ext="b")) == (found, missing)


def test_d_takes_what_stands_in_the_place_of_default() -> None:
    disk = disk_with(t_cdb=table({b":a@example.org": A}))
    assert exits(b"-d", b"t.cdb", disk=disk) == 0
    assert exits(b"t.cdb", disk=disk) == 100
    assert exits(b"-d", b"t.cdb", ext="A", default=False, disk=disk) == 0


@pytest.mark.parametrize("content", [b"", b"\xff" * 2048, TABLE[:2000], TABLE[:-1], b"a@example.org: b@x;\n"])
def test_a_damaged_table_defers(content: bytes) -> None:
    assert exits(b"-d", b"t.cdb", disk=disk_with(t_cdb=content)) == 111


def test_a_table_that_its_user_may_not_read_defers() -> None:
    disk = disk_with()
    disk.file(HOME + b"/t.cdb", TABLE, mode=0o600)
    assert exits(b"t.cdb", disk=disk) == 111


@pytest.mark.parametrize(("mode", "status"), [(0o644, 0), (0o604, 0), (0o640, 111), (0o600, 111)])
def test_a_list_has_to_be_readable_for_everybody(mode: int, status: int) -> None:
    disk = disk_with(t_cdb=table({b":a@example.org": LIST}))
    disk.file(HOME + b"/list.bin", b"&ann@x\0", mode=mode, uid=OWNER.uid)
    assert exits(b"-d", b"t.cdb", disk=disk) == status


def test_a_directory_is_no_list() -> None:
    disk = disk_with(t_cdb=table({b":a@example.org": LIST}))
    disk.directory(HOME + b"/list.bin")
    assert exits(b"-d", b"t.cdb", disk=disk) == 111


def test_the_answer_names_the_table() -> None:
    tables = looking(disk_with(t_cdb=TABLE))
    assert program([b"-d", b"t.cdb"], delivery("b"), tables).where == HOME + b"/t.cdb"


# -- beside the real program --------------------------------------------------------------------------

users = st.sampled_from(["a", "b", "A", "a.b", "a-b", "o'neil", "", "x+y"])
domains = st.sampled_from(["example.org", "Example.ORG", "far.example", "x", ""])
addresses = st.builds("{}@{}".format, users, domains)
commands = st.one_of(
    addresses,
    addresses.map("&{}".format),
    st.sampled_from(
        ["./ok.bin", "./none.bin", "./nest.bin", "./loop.bin", "./private.bin", "./dir.bin", "/nonexistent"]
    ),
    st.sampled_from(["|exit\\ 0", "!true"]),
    addresses.map("?{}".format),
)
instructions = st.tuples(st.one_of(addresses, users.map("{}@".format), domains.map("@{}".format)), st.lists(commands))
tables = st.lists(instructions, max_size=8)
options = st.sampled_from([[], ["-p"], ["-d"], ["-dp"], ["-pP"], ["-dD", "-p"], ["--"], ["-x"]])
LISTS = {
    "ok.bin": b"&a@example.org\0&b@far.example\0",
    "nest.bin": b"./ok.bin\0./none.bin\0",
    "loop.bin": b"./loop.bin\0&a@example.org\0|exit 100\0text\0&a@x",
    "private.bin": b"&a@x\0",
}


def compiled(lines: list[tuple[str, list[str]]], directory: Path) -> bytes | None:
    """The table that setforward makes; None if it finds the text wrong."""
    text = "".join(f"{target}: {', '.join(commands)};\n" for target, commands in lines)
    done = subprocess.run(["setforward", "t.cdb", "t.tmp"], cwd=directory, input=text.encode(), check=False)
    return (directory / "t.cdb").read_bytes() if not done.returncode else None


def real(directory: Path, to: Delivery, *options: str) -> int:
    """What the real one exits with; it forwards nothing."""
    variables = {name.decode(): value.decode() for name, value in to.variables.items()}
    command = ["fastforward", "-n", *options, "t.cdb"]
    environment = {**os.environ, **variables}
    return subprocess.run(
        command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
    ).returncode


@pytest.mark.peer("fastforward", "setforward")
@settings(max_examples=settings().max_examples // 2)  # each starts several programs
@given(tables, st.lists(st.tuples(users, domains, options), min_size=1, max_size=4))
@example([("a@x", ["./none.bin", "|exit\\ 0"])], [("a", "x", ["-d"])])
@example([("a@x", ["&b@x"]), ("b@x", ["./private.bin"])], [("A", "X", ["-dp"])])
@example([("a@", ["&a@y"]), ("@y", ["./none.bin"])], [("a", "x", ["-d"])])
def test_as_the_real_one(lines: list[tuple[str, list[str]]], asked: list[tuple[str, str, list[str]]]) -> None:
    with temporary_directory() as directory:
        content = compiled(lines, directory)
        if content is None:
            return
        disk = disk_with(t_cdb=content)
        for name, data in LISTS.items():
            (directory / name).write_bytes(data)
            mode = 0o640 if name == "private.bin" else 0o644
            (directory / name).chmod(mode)
            disk.file(b"%s/%s" % (HOME, name.encode()), data, mode=mode, uid=OWNER.uid)
        (directory / "dir.bin").mkdir()
        disk.directory(HOME + b"/dir.bin")
        for user, domain, given_options in asked:
            to = delivery(user, host=domain.encode())
            ours = code(program, [option.encode() for option in given_options] + [b"t.cdb"], to, looking(disk))
            if ours is None:
                assert any(command.startswith(("|", "!")) for _, commands in lines for command in commands)
            else:
                assert ours == real(directory, to, *given_options)


@pytest.mark.peer("fastforward")
@settings(max_examples=settings().max_examples // 2)  # each starts several programs
@given(strategies.damaged(st.just(TABLE)), st.sampled_from(["a", "b", "c"]))
def test_as_the_real_one_on_a_damaged_table(content: bytes, user: str) -> None:
    to = delivery(user)
    ours = code(program, [b"-d", b"t.cdb"], to, looking(disk_with(t_cdb=content)))
    with temporary_directory() as directory:
        (directory / "t.cdb").write_bytes(content)
        assert ours in (real(directory, to, "-d"), None)
