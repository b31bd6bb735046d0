"""Every reason word that the product uses is in the registry: looked at wherever a test makes it use one.

Words that tests use themselves, and those of plug-ins for tests, are not looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cvm_qmail.answer import TEMPORARY_FAILURE, Answer, Kind, Unavailable, Verdict
from cvm_qmail.reasons import REASONS

KNOWN = {(reason.word, reason.outcome.value) for reason in REASONS}


def _check(word: object, outcome: str, depth: int) -> None:
    """Fails for a word that code of the product uses and nobody has declared."""
    if not word or (word, outcome) in KNOWN:
        return
    module = sys._getframe(depth).f_globals.get("__name__", "")
    if module.startswith(("cvm_directory.", "cvm_qmail.", "cvm_vpopmail.", "cvm_vmailmgr.")) and isinstance(word, str):
        raise AssertionError(f"{module} uses the reason word {word!r} for {outcome}: declare it in reasons.py")


def _answers(new: Callable[..., Answer]) -> Callable[..., Answer]:
    def checked(cls: type[Answer], verdict: Verdict, reason: str = "", *more: Any, **named: Any) -> Answer:
        if isinstance(verdict, Verdict):
            _check(reason, verdict.word, 2)
        return new(cls, verdict, reason, *more, **named)

    return checked


def _failures(init: Callable[..., None]) -> Callable[..., None]:
    def checked(self: Unavailable, reason: str, *more: Any, **named: Any) -> None:
        if Kind.TOO_LARGE not in (*more, *named.values()):  # an acceptance that does not fit keeps its word
            _check(reason, TEMPORARY_FAILURE, 2)
        init(self, reason, *more, **named)

    return checked


@contextmanager
def only_registered_words() -> Iterator[None]:
    """While this is open, an unknown word is an AssertionError."""
    new, init = Answer.__new__, Unavailable.__init__
    Answer.__new__ = _answers(new)
    Unavailable.__init__ = _failures(init)
    try:
        yield
    finally:
        Answer.__new__, Unavailable.__init__ = new, init
