"""In which order the lines of a .qmail file count."""

from __future__ import annotations

import pytest

from cvm_qmail.answer import Unavailable
from cvm_qmail.rules.exit_status import Ran
from cvm_qmail.rules.instructions import DIFFERENT, FOLLOWED, follow


def run(command: bytes) -> Ran | None:
    """Commands are their own statuses; ``?`` is one that only a run could determine, ``yNN`` says so."""
    if command.startswith(b"?"):
        return None
    return Ran(int(command.lstrip(b"y")), "said" if command.startswith(b"y") else "")


def result(text: bytes, *, branch: bool = False) -> str:
    try:
        ran = follow(text, run, branch=branch)
    except Unavailable as error:
        return error.reason
    if ran is None:
        return "accepted"
    if ran.status is None:
        return "unknown"
    return {0: "accepted", 99: "stopped"}.get(ran.status, "bounced") + (" said" if ran.reason else "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "accepted"),
        (b"./Maildir/\n&joe@x\n#|100\n |100\nx|100\n", "accepted"),
        (b"|0\n", "accepted"),
        (b"|100", "bounced"),
        (b"|100 \t\n", "bounced"),
        (b"./Mailbox\n|100\n", "bounced"),
        (b"|0\n|100\n", "bounced"),
        (b"|100\n|111\n", "bounced"),
        (b"|111\n|100\n", "program-defers"),
        (b"|99\n|100\n", "stopped"),
        (b"|1\n", "program-defers"),
        (b"|127\n", "program-defers"),
        *((b"|%d\n" % status, "bounced") for status in (64, 65, 70, 76, 77, 78, 100, 112)),
        (b"|?\n|100\n", "unknown"),
        (b"|100\n|?\n", "bounced"),
        (b"|y0\n", "accepted said"),
        (b"|y0\n|0\n", "accepted said"),
        (b"|y99\n", "stopped said"),
        (b"|y100\n", "bounced said"),
        (b"|y0\n|?\n", "unknown"),
        (b"+list\n|100\n", "dotqmail-forward-only"),
        (b"+list\t \n./Mailbox\n", "dotqmail-forward-only"),
        (b"+list\0x\n|0\n", "dotqmail-forward-only"),
        (b"+list\n&joe@x\n", "accepted"),
        (b"+other\n|100\n", "bounced"),
        (b"+listx\n|100\n", "bounced"),
        (b"|100\n+list\n|0\n", "bounced"),
        (b"|99\n+list\n|0\n", "stopped"),
        (b"|0\n+list\n|100\n", "dotqmail-forward-only"),
        (b"?a 100\n:a\n", "accepted"),
    ],
)
def test_the_first_line_that_decides_decides(text: bytes, expected: str) -> None:
    assert result(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"?a 100\n", "bounced"),
        (b"?a 111\n", "program-defers"),
        (b"?a 0\n|100\n", "bounced"),
        (b"?a 99\n|100\n:a\n", "accepted"),
        (b"?a 99\n|100\n:a\n|100\n", "bounced"),
        (b"?a 99\n|100\n:b\n|100\n", "accepted"),
        (b"?a 99\n|100\n:A\n|100\n", "accepted"),
        (b"?a 99\n|100\n:a \tand more words\n", "accepted"),
        (b":a\n?a 99\n|100\n", "accepted"),
        (b"?a\n|100\n:a\n", "accepted"),
        (b"?a \t \n|100\n", "accepted"),
        (b"? 99\n|100\n:\n|77\n", "bounced"),
        (b"?\n|100\n", "accepted"),
        (b"?a 99\n?b 100\n:a\n?b 99\n|100\n:b\n", "accepted"),
        (b"?a ?\n|100\n", "unknown"),
        (b"?a 99\n+list\n./Mailbox\n:a\n|0\n", "accepted"),
        (b"+list\n?a 99\n", "dotqmail-forward-only"),
        (b"|99\n|100\n:a\n", "stopped"),
        (b":a\n", "accepted"),
    ],
)
def test_labels_with_the_patch(text: bytes, expected: str) -> None:
    assert result(text, branch=True) == expected


def test_a_command_that_stands_there_again_is_asked_once() -> None:
    asked: list[bytes] = []

    def once(command: bytes) -> Ran:
        asked.append(command)
        return Ran(0)

    follow(b"|a\n" * 1000, once, branch=False)
    assert asked == [b"a"]


def test_a_million_lines_are_not_all_followed() -> None:
    assert result(b"|0\n" * (FOLLOWED - 1) + b"|100\n") == "bounced"
    assert result(b"|0\n" * 1_000_000 + b"|100\n") == "unknown"


def test_thousands_of_different_commands_are_not_all_followed() -> None:
    commands = b"".join(b"|%d\n" % (256 * n) for n in range(DIFFERENT))
    assert follow(commands, lambda _: Ran(0), branch=False) is None
    ran = follow(commands + b"|1\n", lambda _: Ran(0), branch=False)
    assert ran is not None
    assert ran.status is None
