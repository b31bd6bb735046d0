"""What a person hands over: a file, bounded and never waited for; an address; a module's name."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest

from cvm_qmail.answer import Recipient
from cvm_qmail.cvmctl.ui.arguments import module_named, read, recipient_of
from cvm_qmail.cvmctl.ui.output import PERMANENT, Failure
from cvm_qmail.qmail import qmail


def test_a_plain_file_is_read_up_to_the_bound(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read(str(tmp_path / "file"), 5) == b"12345"
    with pytest.raises(Failure, match="more than 4 bytes") as failure:
        read(str(tmp_path / "file"), 4)
    assert failure.value.exit_code == PERMANENT


def test_anything_else_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(Failure, match="not a regular file"):
            read(str(path), 5)


def test_a_file_that_is_not_there_is_a_temporary_failure(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(str(tmp_path / "nothing"), 5)


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        (b"joe@x", Recipient(b"joe", b"x")),
        (b"a@b@x", Recipient(b"a@b", b"x")),
        (b"joe", Recipient(b"joe", None)),
        (b"joe@", Recipient(b"joe", b"")),
    ],
)
def test_an_address_is_split_at_its_last_at_sign(address: bytes, asked: Recipient) -> None:
    assert recipient_of(address) == asked


def test_a_module_is_found_by_its_name() -> None:
    assert module_named("cvm-qmail") is qmail
    assert module_named("cvm-vpopmail").__module__.startswith("cvm_vpopmail.")


def test_a_name_that_no_module_has_is_wrong_usage_and_the_others_are_named() -> None:
    with pytest.raises(click.BadParameter, match=r"^cvm-qmial: found no such module, expected one of .*cvm-vpopmail"):
        module_named("cvm-qmial")
