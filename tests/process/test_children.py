"""Children with a deadline."""

from __future__ import annotations

import errno
import gc
import os
import signal
from collections.abc import Callable

import pytest
from serving import until

from cvm_qmail.process.children import SIGKILL, run_with_deadline

Write = Callable[[bytes], None]


def open_descriptors() -> int:
    gc.collect()  # of what other tests have left
    return len(os.listdir("/proc/self/fd"))


def test_a_fork_that_fails_leaves_no_descriptor_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", fork)
    before = open_descriptors()
    with pytest.raises(BlockingIOError):
        run_with_deadline(lambda write: write(b""), 60)
    assert open_descriptors() == before


def test_what_a_child_writes_comes_back_whole() -> None:
    data = bytes(range(256)) * 4096
    assert run_with_deadline(lambda write: write(data), 60) == (data, True)


def test_a_child_that_dies_has_ended() -> None:
    def die(write: Write) -> None:
        write(b"first")
        os.kill(os.getpid(), signal.SIGKILL)

    assert run_with_deadline(die, 60) == (b"first", True)


def test_a_child_past_its_deadline_is_killed_and_what_it_wrote_counts() -> None:
    def hang(write: Write) -> None:
        write(b"%d " % os.getpid())
        while True:
            signal.pause()

    data, ended = run_with_deadline(hang, 0.2)
    assert not ended
    pid = int(data)
    until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, "it is dead")


@pytest.mark.parametrize("ignored", [signal.SIG_DFL, signal.SIG_IGN])
def test_it_works_whatever_was_inherited_for_sigchld(ignored: signal.Handlers) -> None:
    before = signal.signal(signal.SIGCHLD, ignored)
    try:
        assert run_with_deadline(lambda write: write(b"x"), 60) == (b"x", True)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_the_signal_is_that_of_the_system() -> None:
    assert signal.SIGKILL == SIGKILL
