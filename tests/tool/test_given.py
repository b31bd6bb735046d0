"""What a person hands over: bounded, and never waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cvm_qmail.tool.given import read
from cvm_qmail.tool.show import PERMANENT, Failure


def test_a_plain_file_is_read_up_to_the_bound(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read(str(tmp_path / "file"), 5) == b"12345"
    with pytest.raises(Failure, match="more than 4 bytes") as failure:
        read(str(tmp_path / "file"), 4)
    assert failure.value.exit_code == PERMANENT


def test_anything_else_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(Failure, match="not a plain file"):
            read(str(path), 5)


def test_a_file_that_is_not_there_is_a_trouble(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(str(tmp_path / "nothing"), 5)
