"""Any records as fastforward's table: judged in bounded steps, or `Unavailable`; the same without lists that exist.

The answer for a target without a record is "not found", and a program that can be reached is never
followed.  Input: a target, a line feed, then a record a line: ``key=value``, with ``;`` for NUL.
"""

from __future__ import annotations

from cvm_qmail.answer import Unavailable
from cvm_qmail.programs.fastforward import STEPS, Places, handles

SEEDS = [
    b"joe@example.org\n:joe@example.org=&ann@x;\n:ann@x=./l;&joe@example.org;\n",
    b"joe@x\n:@x=&a@x;|exit 100;\n",
    b"joe@x\n:joe@=/l;\n?joe@x=owner\n",
    b"a@b@c\n:a@b@=!x;&;\n",
    b"JOE@X\n:joe@x=text;;&JOE@X;./none;\n",
    b"@\n:@=&@;\n",
]

LIST = b"&joe@example.org\0./l\0|exit 1\0text"


class Counting(dict[bytes, bytes]):
    """A table that counts how often it is asked."""

    asked = 0

    def get(self, key: bytes, /, default: bytes | None = None) -> bytes | None:
        """As a dict."""
        self.asked += 1
        return super().get(key, default)


def check(data: bytes) -> None:
    """See the head of this file."""
    target, *records = data.split(b"\n")
    table = Counting()
    for record in records:
        key, _, value = record.partition(b"=")
        table[key] = value.replace(b";", b"\0")
    found = judged(target, table, sound=True)
    assert table.asked <= STEPS + 10
    user, _, host = target.rpartition(b"@")
    assert (found is False) == (not {b":" + target, b":@" + host, b":%s@" % user} & table.keys())
    reachable = any(b"|" in value or b"!" in value for value in table.values())
    assert found is not None or reachable
    assert judged(target, table, sound=False) == found


def judged(target: bytes, table: Counting, *, sound: bool) -> bool | str | None:
    """What comes of the target; the reason where it defers."""

    def read(path: bytes) -> bytes:
        if path not in (b"/l", b"./l"):
            raise Unavailable("no-list", "", path)
        return LIST

    try:
        handled = handles(target, Places(table, read, sound))
        return None if handled is None else handled.found
    except Unavailable as error:
        return error.reason
