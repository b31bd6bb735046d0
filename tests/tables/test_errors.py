"""Errors of file calls: which are temporary for qmail, and how they are described."""

from __future__ import annotations

import errno
import os

import pytest

from cvm_qmail.answer import Unavailable
from cvm_qmail.tables.errors import REFUSED, TEMPORARY, describe, raise_if_temporary

# spec/qmail.md, section 7, in the words of errno(3)
QMAIL_RETRIES = [
    "EINTR",
    "ENOMEM",
    "ETXTBSY",
    "EIO",
    "ETIMEDOUT",
    "EAGAIN",
    "EDEADLK",
    "EBUSY",
    "ENFILE",
    "EMFILE",
    "EFBIG",
    "ENOSPC",
    "ENETDOWN",
    "ENETUNREACH",
    "ENETRESET",
    "ECONNABORTED",
    "ECONNRESET",
    "ENOBUFS",
    "ETOOMANYREFS",
    "ECONNREFUSED",
    "EHOSTDOWN",
    "EHOSTUNREACH",
    "EUSERS",
    "EDQUOT",
    "ESTALE",
    "ENOLCK",
]
QMAIL_GIVES_UP = [
    "ENOENT",
    "ENOTDIR",
    "ELOOP",
    "ENAMETOOLONG",
    "EISDIR",
    "ENXIO",
    "ENODEV",
    "EROFS",
    "EINVAL",
    "EOVERFLOW",
    "EBADF",
    "ENOTSUP",
    "EREMOTEIO",
    "ENOTCONN",
]


def test_the_temporary_errors_are_qmails() -> None:
    assert {getattr(errno, name) for name in QMAIL_RETRIES} == TEMPORARY
    assert not {getattr(errno, name) for name in QMAIL_GIVES_UP} & (TEMPORARY | REFUSED)


@pytest.mark.parametrize("name", QMAIL_RETRIES)
def test_a_temporary_error_is_raised_with_its_file(name: str) -> None:
    number = getattr(errno, name)
    with pytest.raises(Unavailable) as error:
        raise_if_temporary(OSError(number, os.strerror(number), b"/a/file"), "dotqmail", b"/a/file")
    assert (error.value.reason, error.value.where) == ("dotqmail", b"/a/file")
    assert (error.value.detail, error.value.errno) == (os.strerror(number), number)


@pytest.mark.parametrize("name", [*QMAIL_GIVES_UP, "EACCES", "EPERM"])
def test_any_other_error_is_left_to_the_caller(name: str) -> None:
    raise_if_temporary(OSError(getattr(errno, name), "x"), "dotqmail", b"/a/file")


def test_an_error_is_described_without_its_path() -> None:
    with pytest.raises(OSError, match="nowhere") as error:
        os.stat("/nowhere")
    assert describe(error.value) == "No such file or directory"
    assert describe(OSError(errno.EINVAL, "not a regular file", b"/a")) == "not a regular file"
    assert describe(OSError("no number")) == "no number"
