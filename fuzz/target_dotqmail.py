"""Any bytes as the mode and lines of a .qmail file: judged good, or `Unavailable` with one of three reasons.

The verdict is that of a reading line by line, as qmail-local reads; and the lines that plug-ins and
look-aside are shown hold no comment, no blank line and no LF.
"""

from __future__ import annotations

from cvm_qmail.answer import Unavailable
from cvm_qmail.rules.dotqmail import DotQmail, Found, judge_list, judge_start, lines, programs

SEEDS = [
    b"\0./Maildir/\n",
    b"\0# comment\n\n|vdelivermail '' bounce\n&ann@example.org\n",
    b"\1&ann\n&bob\n+list\n",
    b"\1&ann\n|x\n",
    b"\0+list \t\n./Mailbox\n/dev/null\n",
    b"\0&a\n+list\0x\n.",
    b"\0 \t\n./x",
    b"\1",
    b"\0\0\n",
]


def check(data: bytes) -> None:
    """See the head of this file.  The first byte says whether the owner may execute the file."""
    mode, content = (0o744 if data[:1] == b"\1" else 0o644), data[1:]
    found = Found(b".qmail", DotQmail(mode, content), default=False)
    try:
        judge_start(found)
        judge_list(found)
        reason = ""
    except Unavailable as error:
        reason = error.reason
    assert reason == expected(mode, content), (reason, expected(mode, content))
    assert all(line.strip(b" \t") and line[0] not in b"#\0" and b"\n" not in line for line in lines(content))
    assert len(programs(content)) <= content.count(b"|")


def expected(mode: int, content: bytes) -> str:
    """qmail-local's way, a line at a time: what it defers for first."""
    forward_only = bool(content) and bool(mode & 0o100)
    for number, raw in enumerate(content.split(b"\n") if content else []):
        line = raw.rstrip(b" \t").partition(b"\0")[0]  # to C a line ends at a NUL
        if not number and not line:
            return "dotqmail-blank"
        if line == b"+list":
            forward_only = True
        if forward_only and line[:1] in (b".", b"/", b"|"):
            return "dotqmail-forward-only"
    return ""
