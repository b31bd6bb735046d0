"""The domains that are rejected most, from a log that grows, is replaced and truncated."""

from __future__ import annotations

from pathlib import Path

from cvm_qmail.cvmctl.top.tail import BEGIN, Tail


def rejected(domain: str) -> str:
    return f"- x@{domain} alias no-mailbox /alias 1us\n"


def test_it_follows_the_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(rejected("a.example") + "+ x@b.example joe mailbox /home/joe 1us\n")
    tail = Tail(str(path))
    tail.look()
    with path.open("a") as grown:
        grown.write(rejected("a.example") + rejected("c.example")[:20])
    tail.look()
    assert dict(tail.domains) == {"a.example": 2}
    with path.open("a") as grown:
        grown.write(rejected("c.example")[20:])
    tail.look()
    assert dict(tail.domains) == {"a.example": 2, "c.example": 1}
    path.rename(tmp_path / "old")
    tail.look()
    path.write_text(rejected("d.example"))
    tail.look()
    path.write_text("")
    tail.look()
    path.write_text(rejected("e.example"))
    tail.look()
    assert dict(tail.domains) == {"a.example": 2, "c.example": 1, "d.example": 1, "e.example": 1}


def test_of_a_long_log_the_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(rejected("old.example") + "x" * BEGIN + "\n" + rejected("new.example"))
    tail = Tail(str(path))
    tail.look()
    assert dict(tail.domains) == {"new.example": 1}
