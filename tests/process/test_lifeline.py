"""Children that die with their parent."""

from __future__ import annotations

import os
import signal
import time

from cvm_qmail.process.lifeline import die_with_parent


def test_a_child_dies_when_the_last_writer_exits() -> None:
    pipe, ours = os.pipe()
    ready, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(ours)
        os.write(writing, b"%d" % die_with_parent(pipe))
        time.sleep(3600)
        os._exit(0)
    assert os.read(ready, 1) == b"1"
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.close(ours)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def test_a_child_whose_parent_has_exited_learns_it() -> None:
    pipe, ours = os.pipe()
    os.close(ours)
    assert not die_with_parent(pipe)
