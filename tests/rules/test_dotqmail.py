"""Which .qmail file decides, and what its mode and lines mean: homes as dicts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cvm_qmail.answer import Unavailable
from cvm_qmail.rules.dotqmail import (
    DotQmail,
    Found,
    Home,
    forwards,
    has_instructions,
    judge_home,
    judge_list,
    judge_start,
    lines,
    names,
    programs,
    search,
)

MASK = 0o002

# -- the home -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (0o755, ""),
        (0o700, ""),
        (0o100, ""),
        (0o775, ""),  # group-write is nobody's business
        (0o2755, ""),
        (0o4755, ""),
        (0o757, "home-writable"),
        (0o702, "home-writable"),
        (0o1755, "home-sticky"),
        (0o1777, "home-writable"),
    ],
)
def test_a_home_that_others_may_write_or_that_is_sticky_makes_qmail_wait(mode: int, reason: str) -> None:
    assert error(lambda: judge_home(Home(0o40000 | mode, {}), MASK)) == reason


def test_a_build_may_mind_group_write_as_well() -> None:
    assert error(lambda: judge_home(Home(0o40775, {}), 0o022)) == "home-writable"


def error(call: Callable[[], object]) -> str:
    """The reason why it cannot be determined; empty: it can."""
    try:
        call()
    except Unavailable as unavailable:
        return unavailable.reason
    return ""


# -- the search ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dash", "ext", "tried"),
    [
        (b"-", b"a-b-c", b".qmail-a-b-c .qmail-a-b-default .qmail-a-default .qmail-default"),
        (b"-", b"a", b".qmail-a .qmail-default"),
        (b"-", b"a-", b".qmail-a- .qmail-a-default .qmail-default"),
        (b"-", b"a--b", b".qmail-a--b .qmail-a--default .qmail-a-default .qmail-default"),
        (b"-", b"-", b".qmail-- .qmail--default .qmail-default"),
        (b"-", b"--", b".qmail--- .qmail---default .qmail--default .qmail-default"),
        (b"-", b"-a", b".qmail--a .qmail--default .qmail-default"),
        (b"-", b"", b".qmail- .qmail-default"),
        (b"", b"", b".qmail .qmaildefault"),
        (b"", b"a-b", b".qmaila-b .qmaila-default .qmaildefault"),
        (b"-", b"A.B-C", b".qmail-a:b-c .qmail-a:b-default .qmail-default"),
        (b"-", b"a:b", b".qmail-a:b .qmail-default"),
        (b"-A.b-", b"C", b".qmail-A.b-c .qmail-A.b-default"),
        (b"+", b"a+b", b".qmail+a+b .qmail+default"),
        (b"-/", b"a", b".qmail-/a .qmail-/default"),
        (b"--", b"a-b", b".qmail--a-b .qmail--a-default .qmail--default"),
        (b"-", b"d/e-f", b".qmail-d/e-f .qmail-d/e-default .qmail-default"),
        (b"-", b"../e", b".qmail-::/e .qmail-default"),
        (b"-", b"default", b".qmail-default .qmail-default"),
        (b"-", b"\xc4", b".qmail-\xc4 .qmail-default"),
    ],
)
def test_the_names_are_tried_in_this_order(dash: bytes, ext: bytes, tried: bytes) -> None:
    assert [name for name, _ in names(dash, ext)] == tried.split()


def test_the_first_name_is_not_a_default_one_and_all_others_are() -> None:
    assert [default for _, default in names(b"-", b"a-b")] == [False, True, True]


def home(*found: str, mode: int = 0o100644) -> dict[bytes, DotQmail]:
    return {name.encode(): DotQmail(mode, b"") for name in found}


@pytest.mark.parametrize(
    ("ext", "name"),
    [
        (b"a-b", b".qmail-a-b"),
        (b"A-B", b".qmail-a-b"),
        (b"a-c", b".qmail-a-default"),
        (b"a-b-c", b".qmail-a-default"),
        (b"b", None),
        (b"a", None),
        (b"x.y", b".qmail-x:y"),
    ],
)
def test_the_first_file_that_is_there_decides(ext: bytes, name: bytes | None) -> None:
    found = search(b"-", ext, home(".qmail-a-b", ".qmail-a-default", ".qmail-x:y", ".qmail-X.Z"), MASK)
    assert (found and found.name) == name


def test_a_file_with_a_capital_or_a_dot_is_never_found() -> None:
    assert search(b"-", b"X.Z", home(".qmail-X.Z", ".qmail-x.z", ".qmail-X:Z"), MASK) is None


def test_the_file_comes_with_its_mode_and_content_and_whether_it_is_a_default() -> None:
    file = DotQmail(0o100600, b"&ann\n")
    assert search(b"-", b"a", {b".qmail-default": file}, MASK) == Found(b".qmail-default", file, default=True)


@pytest.mark.parametrize("mode", [0o646, 0o602, 0o666, 0o002, 0o100646])
def test_a_file_that_others_may_write_makes_qmail_wait(mode: int) -> None:
    files = {b".qmail-a": DotQmail(mode, b""), **home(".qmail-default")}
    assert error(lambda: search(b"-", b"a", files, MASK)) == "dotqmail-writable"


@pytest.mark.parametrize("mode", [0o644, 0o664, 0o620, 0o1644, 0o4644, 0o755])
def test_other_modes_do_not_matter(mode: int) -> None:
    assert search(b"-", b"a", {b".qmail-a": DotQmail(mode, b"")}, MASK)


def test_a_build_may_mind_group_write_of_a_file_as_well() -> None:
    assert error(lambda: search(b"-", b"a", home(".qmail-a", mode=0o664), 0o022)) == "dotqmail-writable"


def test_a_bad_file_further_down_the_search_does_no_harm() -> None:
    files = {**home(".qmail-a"), b".qmail-default": DotQmail(0o666, b"")}
    found = search(b"-", b"a", files, MASK)
    assert found is not None
    assert found.name == b".qmail-a"


def test_a_file_that_cannot_be_opened_ends_the_search() -> None:
    class Refusing:
        def get(self, name: bytes, /) -> DotQmail | None:
            if name == b".qmail-a":
                raise Unavailable("dotqmail-denied")
            return DotQmail(0o644, b"")

    assert error(lambda: search(b"-", b"a", Refusing(), MASK)) == "dotqmail-denied"


# -- contents -----------------------------------------------------------------------------------------


def content(text: bytes | None, mode: int = 0o644) -> str:
    found = Found(b".qmail-a", DotQmail(0o100000 | mode, text), default=False)
    return error(lambda: judge_start(found)) or error(lambda: judge_list(found))


@pytest.mark.parametrize(
    "text", [b"\n", b" \n", b"\t \t\n&ann\n", b"   ", b"\n&ann\n", b"\0&ann\n", b"\0", b" \t", b"\0\n./Mailbox\n"]
)
def test_a_blank_first_line_makes_qmail_wait(text: bytes) -> None:
    assert content(text) == "dotqmail-blank"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"#\n",
        b"# nothing\n\n\n",
        b"./Maildir/\n",
        b"|exit 100\n",
        b"/var/mail/x",
        b"&ann\n\n\0\n",
        b"\r\n",  # CR is a byte like any other: an address
        b" &ann\n",
        b" \0\n",
        b"a\0b\n",
        b"+other\n./Mailbox\n",
        b"\xff\n",
    ],
)
def test_everything_else_is_a_delivery_whatever_it_says(text: bytes) -> None:
    assert content(text) == ""


@pytest.mark.parametrize("line", [b"./Mailbox", b"/var/mail/joe", b"|true", b".", b"/", b"|"])
def test_a_file_or_program_line_in_a_forward_only_file_makes_qmail_wait(line: bytes) -> None:
    assert content(b"&ann\n" + line + b"\n", 0o744) == "dotqmail-forward-only"
    assert content(line, 0o744) == "dotqmail-forward-only"


@pytest.mark.parametrize("text", [b"", b"&ann\n", b"ann\n#./x\n", b" ./x\n", b"&ann\n \t\n", b"+list\n&a\n", b"&./x\n"])
def test_a_forward_only_file_of_forwards_is_a_delivery(text: bytes) -> None:
    assert content(text, 0o744) == ""


@pytest.mark.parametrize("mode", [0o654, 0o645, 0o655, 0o611])
def test_only_the_owners_execute_bit_makes_a_file_forward_only(mode: int) -> None:
    assert content(b"./Mailbox\n", mode) == ""


@pytest.mark.parametrize("marker", [b"+list", b"+list ", b"+list\t ", b"+list\0x"])
def test_from_a_list_line_on_a_file_is_forward_only(marker: bytes) -> None:
    assert content(b"&a\n" + marker + b"\n&b\n./Mailbox\n") == "dotqmail-forward-only"
    assert content(b"./Mailbox\n" + marker + b"\n&b\n") == ""


@pytest.mark.parametrize("marker", [b"+lists", b"+LIST", b" +list", b"#+list", b"+list x", b"++list", b"+lis"])
def test_other_plus_lines_mean_nothing(marker: bytes) -> None:
    assert content(b"&a\n" + marker + b"\n./Mailbox\n") == ""


def test_a_list_line_as_the_last_one_without_a_line_end_does_nothing() -> None:
    assert content(b"./Mailbox\n+list") == ""


def test_a_blank_first_line_comes_before_the_execute_bit() -> None:
    assert content(b"\n./Mailbox\n", 0o744) == "dotqmail-blank"


def test_lines_that_cannot_be_read_are_assumed_good_unless_the_file_is_forward_only() -> None:
    assert content(None) == ""
    assert content(None, 0o744) == "dotqmail-unread"


# -- lines --------------------------------------------------------------------------------------------


def test_lines_are_without_comments_blanks_and_trailing_blanks() -> None:
    assert lines(b"&ann \t\n#x\n\n \t\n./Maildir/\n |x\n\0y\n+list\nlast") == [
        b"&ann", b"./Maildir/", b" |x", b"+list", b"last",
    ]  # fmt: skip


def test_programs_are_what_follows_the_bar() -> None:
    assert programs(b"#|no\n|  vdelivermail '' bounce \n&x\n||twice\n|\n") == [
        b"  vdelivermail '' bounce",
        b"|twice",
        b"",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"|a", True),
        (b"?a", True),
        (b"&ann\n|a", True),
        (b"&ann\n?a", True),
        (b"&ann|a\n./Maildir/\n #|a\n", False),
        (b"", False),
    ],
)
def test_instructions_are_lines_with_a_status_of_their_own(content: bytes, expected: bool) -> None:
    assert has_instructions(content) is expected


@pytest.mark.parametrize(
    ("content", "addresses"),
    [
        (b"&ann@example.org\nbob\n", (b"ann@example.org", b"bob")),
        (b"# both\n+list\n&ann\n", (b"ann",)),
        (b"&ann\0joe\n", (b"ann",)),
        *((b"&ann\n%cx\n" % sign, ()) for sign in b"./|?:"),
        (b"", ()),
    ],
)
def test_forwards_are_all_the_lines_or_none(content: bytes, addresses: tuple[bytes, ...]) -> None:
    assert forwards(content) == addresses


@pytest.mark.parametrize("branch", [False, True])
def test_a_branch_is_no_forward_only_where_it_is_understood(branch: bool) -> None:
    found = Found(b".qmail", DotQmail(0o100744, b"&ann\n?x\n"), default=False)
    if branch:
        with pytest.raises(Unavailable, match="dotqmail-forward-only"):
            judge_start(found, branch=True)
    else:
        judge_start(found)
