"""The bar: only a person sees it."""

from __future__ import annotations

import pytest

from cvm_qmail.cvmctl.ui.progress import STEPS, progress


class Terminal:
    """What a person would see."""

    def __init__(self) -> None:
        self.seen = ""

    def write(self, text: str) -> int:
        self.seen += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def test_who_does_not_look_sees_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("looking up", 10) as step:
        step(10)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("total", [10 * STEPS, None])
def test_on_a_terminal_it_moves_and_is_gone_at_the_end(total: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress("looking\x1bup", total) as step:
        for _ in range(STEPS):
            step(10)
        assert "looking\\x1bup" in terminal.seen
        assert ("100%" in terminal.seen) == (total is not None)
        before = terminal.seen
    assert "\x1b[2K" in terminal.seen[len(before) :]


def test_it_is_not_there_if_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with progress("looking up", 10, wanted=False) as step:
        step(10)
    assert terminal.seen == ""
