"""Whether a maildir, or a domain, is too full."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from stat import S_IFDIR, S_IFREG, S_ISREG
from typing import Any

import pytest
from hosts import as_bytes, load, temporary_directory
from hypothesis import given
from hypothesis import strategies as st

from cvm_qmail.answer import Unavailable
from cvm_qmail.tables.access import Status
from cvm_vpopmail.accounts import Account, Flag, View
from cvm_vpopmail.rules import limits, quota
from cvm_vpopmail.rules.limits import Limits
from cvm_vpopmail.rules.quota import MAILDIRSIZE_AGE, MAILDIRSIZE_LIMIT, UNLIMITED, Quota, domain_over, over, parse
from cvm_vpopmail.vpasswd import parse as account_of

NOW = 1_700_000_000.5
MAILDIR = b"/joe/Maildir"
SIZE = MAILDIR + b"/maildirsize"
WRAP = 1 << 64


class Tree:
    """A View of a dict of files; directories are what paths need, and list in the order of the dict."""

    def __init__(self, files: Mapping[bytes, bytes], age: float = 0, cannot_tell: bytes = b"") -> None:
        self._files = files
        self._age = age
        self._cannot_tell = cannot_tell
        self._directories: dict[bytes, dict[bytes, None]] = {}
        for path in files:
            parts = path.split(b"/")
            for end in range(1, len(parts)):
                self._directories.setdefault(b"/".join(parts[:end]), {})[parts[end]] = None

    def file(self, path: bytes, /) -> bytes | None:
        return self._files.get(path)

    def status(self, path: bytes, /) -> Status | None:
        mtime = int(NOW - self._age)
        if path in self._directories:
            return Status(0, 0, S_IFDIR | 0o755, 4096, mtime)
        return Status(0, 0, S_IFREG | 0o644, len(self._files[path]), mtime) if path in self._files else None

    def listing(self, path: bytes, /) -> list[bytes] | None:
        if path == self._cannot_tell:
            raise Unavailable("disk", "it is broken", path)
        return list(self._directories[path]) if path in self._directories else None

    def enters(self, path: bytes, /) -> bool:
        return path in self._directories

    def writable(self, path: bytes, /) -> bool:
        return path in self._directories

    def is_link(self, _: bytes, /) -> bool:
        return False


class Disk:
    """A View of the real file system, as this process sees it."""

    def file(self, path: bytes, /) -> bytes | None:
        try:
            if not S_ISREG(os.stat(path).st_mode):
                return None
            with open(path, "rb") as file:
                return file.read()
        except OSError:
            return None

    def status(self, path: bytes, /) -> Status | None:
        try:
            seen = os.stat(path)
        except OSError:
            return None
        return Status(seen.st_uid, seen.st_gid, seen.st_mode, seen.st_size, int(seen.st_mtime))

    def listing(self, path: bytes, /) -> list[bytes] | None:
        try:
            return os.listdir(path)
        except OSError:
            return None

    def enters(self, path: bytes, /) -> bool:
        return os.access(path, os.X_OK)

    def writable(self, path: bytes, /) -> bool:
        return os.access(path, os.W_OK)

    def is_link(self, path: bytes, /) -> bool:
        return os.path.islink(path)


def tree(*names: str, size: bytes | None = None, age: float = 0, cannot_tell: str = "") -> Tree:
    """joe's maildir with these messages of one byte each, and this maildirsize."""
    files = {MAILDIR + b"/" + name.encode(): b"x" for name in names}
    if size is not None:
        files[SIZE] = size
    return Tree(files, age, MAILDIR + b"/" + cannot_tell.encode() if cannot_tell else b"")


def is_over(text: bytes | None, view: View, size: int = 100) -> bool:
    return over(MAILDIR, text, size, view, lambda: NOW)


# -- quota texts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        (b"", UNLIMITED),
        (b"NOQUOTA", UNLIMITED),
        (b"NO,5C", UNLIMITED),
        (b"garbage", UNLIMITED),
        (b"0S,0C", UNLIMITED),
        (b"S", UNLIMITED),
        (b"MB", UNLIMITED),
        (b"nothing", UNLIMITED),
        (b"1000", Quota(1000, 0)),
        (b"10485760S", Quota(10485760, 0)),
        (b"10MB", Quota(10 << 20, 0)),
        (b"10mbs", Quota(10 << 20, 0)),
        (b"10 M", Quota(10 << 20, 0)),
        (b"7k", Quota(7 << 10, 0)),
        (b"7Kb", Quota(7 << 10, 0)),
        (b"7SB", Quota(7, 0)),
        (b"7MSB", Quota(7, 0)),
        (b"1000C", Quota(0, 1000)),
        (b"5000S,10C", Quota(5000, 10)),
        (b"10C,5000S", Quota(5000, 10)),
        (b"5c", Quota(5, 0)),
        (b"1KC", Quota(0, 1)),
        (b",,1S,,2C,,", Quota(1, 2)),
        (b"1S,2S", Quota(2, 0)),
        (b"1S,junk", UNLIMITED),
        (b" 12 S", Quota(12, 0)),
        (b"12x34", Quota(12, 0)),
        (b"12\0S,5C", Quota(12, 0)),
        (b"-1", Quota(WRAP - 1, 0)),
        (b"-1K", Quota(WRAP - 1024, 0)),
        (b"99999999999999999999C", Quota(0, (1 << 63) - 1)),
        (b"17592186044417M", Quota(1 << 20, 0)),
        (b"1" * 5000, Quota((1 << 63) - 1, 0)),
        (b"0" * 126 + b"12", Quota(1, 0)),
    ],
)
def test_what_a_quota_text_limits(text: bytes, limits: Quota) -> None:
    assert parse(text) == limits


C = ctypes.CDLL(None)
C.strtoll.restype = ctypes.c_longlong
C.strtoll.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int]


def by_the_book(text: bytes) -> tuple[int, int]:
    """Character by character, with the C library's own strtoll."""
    size = count = 0
    text = text[:127].split(b"\0")[0]
    for part in [] if text[:2] == b"NO" else [part for part in text.split(b",") if part != b""]:
        if part[-1:] == b"C":
            count = C.strtoll(part, None, 10)
            continue
        last = len(part) - 1
        for letters in (b"sS", b"bB"):
            if last >= 0 and part[last] in letters:
                last -= 1
        size = C.strtoll(part[: last + 1], None, 10)
        if last >= 0 and part[last] in b"mM":
            size *= 1024 * 1024
        if last >= 0 and part[last] in b"kK":
            size *= 1024
    return size % WRAP, count % WRAP


TEXTS = st.one_of(
    st.text(alphabet="0123456789KMBSCkmbsc,-+ NO\t\0x", max_size=40).map(str.encode),
    st.lists(st.builds(b"%d%b".__mod__, st.tuples(st.integers(), st.sampled_from([b"", b"S", b"MB", b"K", b"C"])))).map(
        b",".join
    ),
    st.binary(max_size=140),
)


@given(TEXTS)
def test_quota_texts_are_read_by_the_book(text: bytes) -> None:
    assert parse(text) == by_the_book(text)


# -- maildirsize --------------------------------------------------------------------------------------


def test_full_means_more_than_the_limit_with_this_message() -> None:
    assert not is_over(b"1000S", tree(size=b"1000S\n900 1\n"))
    assert is_over(b"1000S", tree(size=b"1000S\n901 1\n"))
    assert not is_over(b"3C", tree(size=b"3C\n900 2\n"))
    assert is_over(b"3C", tree(size=b"3C\n900 3\n"))
    assert is_over(b"9999S,3C", tree(size=b"\n900 3\n"))


def test_a_slash_at_the_end_makes_no_difference() -> None:
    assert over(MAILDIR + b"/", b"1000S", 100, tree(size=b"1000S\n901 1\n"), lambda: NOW)
    assert domain_over(b"/d/", Limits(maxmsgcount=1), 100, domain("joe/Maildir/cur/a"))


def test_without_a_limit_nothing_is_looked_at() -> None:
    assert not is_over(b"NOQUOTA", tree("cur/a", size=b"\n999999999 9999\n", cannot_tell="cur"))


def test_all_lines_count_and_some_take_away() -> None:
    assert not is_over(b"1000S", tree(size=b"1000S\n5000 1\n-4500 -1\n"))


def test_only_one_line_is_believed_if_it_says_full() -> None:
    assert is_over(b"1000S", tree("cur/a", size=b"1000S\n5000 1\n"))
    assert not is_over(b"1000S", tree("cur/a", size=b"1000S\n2500 1\n2500 1\n"))
    assert is_over(b"1000S", tree("cur/a,S=901", size=b"1000S\n2500 1\n2500 1\n"))


def test_an_empty_line_is_a_line() -> None:
    assert not is_over(b"1000S", tree("cur/a", size=b"1000S\n5000 1\n\n"))


def test_below_zero_is_full() -> None:
    assert is_over(b"1000S", tree(size=b"1000S\n-4500 1\n"))
    assert is_over(b"1000C", tree(size=b"1000C\n500 -9\n"))
    assert not is_over(b"1000S", tree(size=b"1000S\n-4500 1\n0 0\n"))


def test_what_is_too_large_for_a_number_is_the_largest() -> None:
    assert not is_over(b"99S", tree(size=b"99S\n18446744073709551616 1\n"))  # and with the message it is 99


def test_what_follows_a_nul_is_not_there() -> None:
    assert is_over(b"1000S", tree("cur/a", size=b"1000S\n5000 1\0\n-4500 -1\n"))


@pytest.mark.parametrize(
    ("age", "full"),
    [(0, True), (MAILDIRSIZE_AGE - 1, True), (MAILDIRSIZE_AGE, False), (MAILDIRSIZE_AGE + 1, False), (-9999, True)],
)
def test_it_says_full_for_less_than_15_minutes(age: int, *, full: bool) -> None:
    assert is_over(b"1000S", tree("cur/a", size=b"1000S\n5000 1\n", age=age)) is full


@pytest.mark.parametrize(("age", "full"), [(0, False), (MAILDIRSIZE_AGE, False), (MAILDIRSIZE_AGE + 1, True)])
def test_it_says_not_full_for_15_minutes(age: int, *, full: bool) -> None:
    assert is_over(b"1000S", tree("cur/a,S=5000", size=b"1000S\n0 0\n", age=age)) is full


@pytest.mark.parametrize(("length", "full"), [(MAILDIRSIZE_LIMIT - 1, False), (MAILDIRSIZE_LIMIT, True)])
def test_a_long_one_is_no_use(length: int, *, full: bool) -> None:
    text = b"1000S\n0 0".ljust(length - 1) + b"\n"
    assert is_over(b"1000S", tree("cur/a,S=5000", size=text)) is full


def test_a_very_long_one_is_not_even_read() -> None:
    class Careful(Tree):
        def file(self, path: bytes, /) -> bytes | None:
            raise Unavailable("file", "it is too long", path)

    assert not is_over(b"1000S", Careful({SIZE: b"0" * MAILDIRSIZE_LIMIT}))


def test_the_header_is_the_limit_where_none_is_given() -> None:
    for text in (None, b""):
        assert is_over(text, tree(size=b"1000S\n5000 1\n"))
        assert not is_over(text, tree(size=b"9000S\n5000 1\n"))
        assert not is_over(text, tree(size=b"\n5000 1\n"))
        assert not is_over(text, tree("cur/a,S=5000"))
    assert not is_over(b"9000S", tree(size=b"1000S\n5000 1\n"))
    assert is_over(None, tree("cur/a,S=5000", size=b"1000S\n", age=MAILDIRSIZE_AGE + 1))


def test_the_header_is_cut_as_vpopmail_cuts_it() -> None:
    assert not is_over(None, tree(size=b"9000".rjust(79) + b"\n5000 1\n"))
    assert is_over(None, tree(size=b"9000".rjust(80) + b"\n5000 1\n"))
    assert not is_over(None, tree(size=b"\0" + b"1000S\n5000 1\n"))


C.sscanf.restype = ctypes.c_int


def scanned(line: bytes) -> tuple[int, int]:
    """What the C library's own scanf reads."""
    size, count = ctypes.c_ulonglong(0), ctypes.c_ulonglong(0)
    C.sscanf(ctypes.c_char_p(line), b"%llu %llu", ctypes.byref(size), ctypes.byref(count))
    return size.value, count.value


LINES = st.one_of(
    st.builds(b"%d %d".__mod__, st.tuples(st.integers(-(10**5), 10**5), st.integers(-9, 9))),
    st.builds(b"%d%d".__mod__, st.tuples(st.integers(), st.integers(-(1 << 66), 1 << 66))),
    st.text(alphabet="0123456789+- \t\r\v\fx.", max_size=30).map(str.encode),
    st.binary(max_size=20),
    st.integers(1, 5000).map(lambda digits: b"7" * digits + b" 1"),
)


@given(
    lines=st.lists(LINES, max_size=6),
    end=st.sampled_from([b"", b"\n"]),
    kind=st.sampled_from([0, 1]),
    short=st.integers(-1, 1),
)
def test_maildirsize_is_read_by_the_book(lines: list[bytes], end: bytes, kind: int, short: int) -> None:
    text = b"\n".join([b"header", *lines]) + end
    data = text.split(b"\0")[0].split(b"\n")[1:]
    if data and not data[-1]:
        data.pop()
    message = (100, 1)[kind]
    used = (sum(scanned(line)[kind] for line in data) + message) % WRAP
    limit = min(max(1, used - short), (1 << 63) - 1)
    full = used > limit
    if len(text) >= MAILDIRSIZE_LIMIT or (full and len(data) != 1):
        full = message > limit  # counted: the maildir is empty
    assert is_over(b"%d%c" % (limit, b"SC"[kind]), tree(size=text)) == full


# -- counting -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "used"),
    [
        ([], (0, 0)),
        (["cur/a"], (1, 1)),
        (["new/a,S=7", "cur/b,S=8:2,S"], (15, 2)),
        (["cur/a,S=7,W=8:2,", "cur/b,S=1,S=2", "cur/c,S=", "cur/d,S=x"], (9, 4)),
        (["cur/a:2,S=5"], (1, 1)),
        (["cur/a:,S=5"], (1, 1)),
        (["cur/a,S=7:2,ST", "cur/b,S=7:2,T"], (0, 0)),
        (["cur/a,S=7:2,aT", "cur/b,S=7:1,T", "cur/c,S=7:2,S:2,T", "cur/d,S=7T"], (28, 4)),
        (["cur/.hidden", "cur/.T"], (0, 0)),
        (["tmp/a", "courierimapuiddb", "a/cur/b"], (0, 0)),
        ([".Sent/cur/a", ".Sent.Old/new/b", ".Trash/cur/c", ".Trash.x/cur/d", ".trash/cur/e"], (4, 4)),
        ([".Sent/.Deep/cur/a", ".Sent/tmp/b", ".file"], (0, 0)),
        (["cur/directory/a"], (4096, 1)),
        (["cur/a,S=18446744073709551615", "cur/b,S=6"], (5, 2)),
    ],
)
def test_what_is_counted(names: list[str], used: tuple[int, int]) -> None:
    size, count = used
    view = tree(*names)
    assert not is_over(b"%dS,%dC" % (size + 100, count + 1), view)
    assert is_over(b"%dS" % (size + 99), view)
    assert is_over(b"%dC" % count, view) or not count


def test_a_message_that_goes_away_is_not_counted() -> None:
    class Racing(Tree):
        def status(self, path: bytes, /) -> Status | None:
            return None if path.endswith(b"/gone") else super().status(path)

    view = Racing({MAILDIR + b"/cur/gone": b"x" * 9000, MAILDIR + b"/cur/here": b"x"})
    assert not is_over(b"101S,2C", view)
    assert is_over(b"100S", view)


def test_what_cannot_be_determined_is_neither_full_nor_not() -> None:
    view = tree("new/a,S=500", "cur/b,S=500", cannot_tell="cur")
    with pytest.raises(Unavailable) as error:
        is_over(b"600S", view)
    assert error.value.reason == "disk"


def test_what_cannot_be_determined_does_not_matter_to_what_is_full_without_it() -> None:
    assert is_over(b"599S", tree("new/a,S=500", "cur/b,S=500", cannot_tell="cur"))


def test_too_much_to_count_cannot_be_determined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "MAILDIR_NAMES", 20)
    full = tree(*(f"cur/{number},S=1" for number in range(16)))
    assert not is_over(b"1000S", full)  # 16 messages, cur in the maildir, and three directories looked at
    full = tree(*(f"cur/{number},S=1" for number in range(17)))
    with pytest.raises(Unavailable, match="more than 20 names"):
        is_over(b"1000S", full)
    with pytest.raises(Unavailable, match="more than 20 names"):
        is_over(b"1000S", tree(*(f".{number}/cur/a" for number in range(8))))


def sizes(names: list[str]) -> Iterator[int]:
    """The sizes that count, character by character."""
    for name in names:
        flags = name.find(":2,")
        letters = ""
        if flags >= 0:
            for letter in name[flags + 3 :]:
                if not "A" <= letter <= "Z":
                    break
                letters += letter
        if name[0] == "." or "T" in letters:
            continue
        at = name.find(":") if ":" in name else len(name)
        while at >= 0 and name[at : at + 3] != ",S=":
            at -= 1
        digits = ""
        for letter in name[at + 3 :] if at >= 0 else "1":
            if not "0" <= letter <= "9":
                break
            digits += letter
        yield int(digits or "0") % WRAP


@given(st.lists(st.text(alphabet=":2,STa.=19", min_size=1, max_size=24), max_size=5, unique=True))
def test_messages_are_counted_by_the_book(names: list[str]) -> None:
    names = [name for name in names if name not in (".", "..")]
    counted = list(sizes(names))
    view = tree(*(f"cur/{name}" for name in names))
    size = sum(counted) + 1000
    assert not is_over(b"%dS,%dC" % (size, len(counted) + 1), view, 1000)
    assert is_over(b"%dS" % (size - 1), view, 1000)
    assert not counted or is_over(b"%dC" % len(counted), view, 1000)


def test_a_real_tree_is_counted_as_it_is() -> None:
    with temporary_directory() as root:
        maildir = root / "Maildir"
        for directory in ("cur", "new", "tmp", ".Sent/cur", ".Trash/cur"):
            (maildir / directory).mkdir(parents=True)
        (maildir / "cur/1,S=400:2,S").write_bytes(b"x")
        (maildir / "new/2").write_bytes(b"x" * 300)
        (maildir / "cur/3").symlink_to("nowhere")
        (maildir / ".Sent/cur/4").write_bytes(b"x" * 200)
        (maildir / ".Trash/cur/5").write_bytes(b"x" * 9000)
        (maildir / ".Sent/maildirfolder").touch()
        path = os.fsencode(maildir)
        for where in (path, path + b"/", path + b"/.Sent/"):
            assert not over(where, b"1000S,4C", 100, Disk(), lambda: NOW)
            assert over(where, b"999S", 100, Disk(), lambda: NOW)
            assert over(where, b"3C", 100, Disk(), lambda: NOW)
        size = maildir / "maildirsize"
        size.write_bytes(b"1000S\n5000 1\n")
        now = size.stat().st_mtime
        assert over(path, None, 100, Disk(), lambda: now + MAILDIRSIZE_AGE - 2)
        assert not over(path, None, 100, Disk(), lambda: now + MAILDIRSIZE_AGE + 2)
        size.write_bytes(b"1000S\n0 0\n")
        assert not over(path, b"500S", 100, Disk(), lambda: now)
        assert not over(path + b"/.Sent/", b"500S", 100, Disk(), lambda: now)
        size.unlink()
        size.mkdir()
        assert not over(path, None, 100, Disk(), lambda: now)
        assert over(path, b"500S", 100, Disk(), lambda: now)


def test_directories_of_directories_are_not_followed_for_ever() -> None:
    class Endless(Tree):
        def status(self, path: bytes, /) -> Status | None:
            return super().status(path.replace(b"/..", b""))

    with pytest.raises(Unavailable, match="directory of a directory"):
        is_over(b"1000S", Endless({MAILDIR + b"/maildirfolder": b""}))


# -- domains ------------------------------------------------------------------------------------------


def domain(*paths: str) -> Tree:
    return Tree({b"/d/" + path.encode(): b"x" for path in paths})


def test_a_domain_is_full_with_all_its_maildirs() -> None:
    view = domain("joe/Maildir/cur/a,S=600000", "ann/Maildir/.Sent/new/b,S=600000", "vpasswd", "list/cur/c,S=9999999")
    assert domain_over(b"/d", Limits(diskquota=1), 100, view)
    assert not domain_over(b"/d", Limits(diskquota=2), 100, view)
    assert domain_over(b"/d", Limits(maxmsgcount=2), 100, view)
    assert not domain_over(b"/d", Limits(maxmsgcount=3), 100, view)


def test_a_domain_is_full_to_the_byte() -> None:
    view = domain("joe/Maildir/cur/a,S=1048476", "joe/Maildir/maildirsize")
    assert not domain_over(b"/d", Limits(diskquota=1), 100, view)
    assert domain_over(b"/d", Limits(diskquota=1), 101, view)


def test_a_domain_without_limits_is_not_counted() -> None:
    view = Tree({b"/d/joe/Maildir/cur/a,S=9": b""}, cannot_tell=b"/d")
    assert not domain_over(b"/d", Limits(), 100, view)
    with pytest.raises(Unavailable):
        domain_over(b"/d", Limits(maxmsgcount=1), 100, view)


def test_hash_directories_are_gone_into() -> None:
    assert domain_over(b"/d", Limits(maxmsgcount=1), 100, domain("0/joe/Maildir/cur/a"))
    assert domain_over(b"/d", Limits(maxmsgcount=1), 100, domain("0/1/joe/Maildir/cur/a"))
    assert not domain_over(b"/d", Limits(maxmsgcount=1), 100, domain("00/joe/Maildir/cur/a"))
    assert not domain_over(b"/d", Limits(maxmsgcount=1), 100, domain("0/Maildir/cur/a"))


def recursively(view: View, directory: bytes, total: list[int]) -> None:
    """readdomainquota: a descent begins at nothing."""
    total[:] = [0]
    for name in view.listing(directory) or []:
        path = b"%s/%s" % (directory, name)
        if len(name) == 1:
            recursively(view, path, total)
        else:
            total[0] += len(view.listing(path + b"/Maildir/cur") or [])


PATHS = st.builds(
    "{}{}/Maildir/cur/{}".format,
    st.sampled_from(["", "0/", "1/", "0/a/", "1/0/"]),
    st.sampled_from(["joe", "ann", "xy"]),
    st.integers(0, 5),
)


@given(st.lists(PATHS, max_size=20))
def test_a_domain_is_counted_by_the_book(paths: list[str]) -> None:
    view = domain("vpasswd", *paths)
    total = [0]
    recursively(view, b"/d", total)
    assert not domain_over(b"/d", Limits(maxmsgcount=total[0] + 1), 100, view)
    assert total[0] == 0 or domain_over(b"/d", Limits(maxmsgcount=total[0]), 100, view)


# -- what the real programs said ----------------------------------------------------------------------

CORPUS = Path(__file__).parents[2] / "corpus/vpopmail"


class Host:
    """A system of the corpus: its files, and what becomes of a message in a maildir."""

    def __init__(self, name: str) -> None:
        self.system: dict[str, Any] = load(CORPUS / f"{name}.json")
        self._files = {
            as_bytes(entry["path"]): as_bytes(entry["text"]) for entry in self.system["files"] if "text" in entry
        }
        self._sight = Tree(self._files)
        self._domains = as_bytes(self.system["vpopmail_dir"]) + b"/domains/"

    def account(self, name: bytes, domain: bytes) -> Account | None:
        for line in self._files[self._domains + domain + b"/vpasswd"].splitlines():
            if line.startswith(name + b":"):
                return account_of(name, line.partition(b":")[2], clear=False)
        return None

    def says_over(self, account: Account, domain: bytes) -> bool:
        """Whether delivery ends at a quota: into the maildir, or what a .qmail file names."""
        lines = self._files.get(account.directory + b"/.qmail", b"").splitlines()
        maildirs = [line for line in lines if line.startswith(b"./")]
        if account.flags & Flag.BOUNCE_MAIL or (lines and not maildirs):
            return False
        size = self.system["message_bytes"]
        if over(account.directory + b"/Maildir", None if maildirs else account.quota, size, self._sight, lambda: NOW):
            return True
        directory = self._domains + domain
        limited = limits.parse(self._files.get(directory + b"/.qmailadmin-limits", b""))
        return bool(self.system["build"].get("domain_quotas")) and domain_over(directory, limited, size, self._sight)


@pytest.mark.parametrize("name", ["quota", "domain-quotas"])
def test_every_case_of_the_corpus(name: str) -> None:
    host = Host(name)
    asked, wrong = 0, []
    for case in host.system["cases"]:
        local, domain = as_bytes(case["local"]), as_bytes(case["domain"])
        account = host.account(local, domain)
        expected = case["details"].get("reason") == "over-quota"
        if account is None:
            assert not expected
            continue
        asked += 1
        if host.says_over(account, domain) != expected:
            wrong.append(case)
    assert not wrong
    assert asked >= 21
