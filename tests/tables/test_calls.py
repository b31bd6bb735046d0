"""System calls that neither block nor read without a bound."""

from __future__ import annotations

import ctypes
import errno
import os
import socket

import pytest
from hosts import Host

from cvm_qmail.tables import calls
from cvm_qmail.tables.errors import TEMPORARY

pytestmark = pytest.mark.root


def test_what_is_no_plain_file_is_not_even_opened(host: Host) -> None:
    """Opening a socket is refused (ENXIO): who says that it is no regular file has not tried."""
    host.file("home/joe/x", "data")
    path = os.fsencode(host.root / "home/joe/x")
    fd = calls.open_regular(path)
    assert os.pread(fd, 10, 0) == b"data"
    os.close(fd)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path + b".socket")
    os.symlink(path + b".socket", path + b".link")
    for odd in (path + b".socket", path + b".link", os.path.dirname(path)):
        with pytest.raises(OSError, match="not a regular file"):
            calls.open_regular(odd)
    with pytest.raises(FileNotFoundError):
        calls.open_regular(path + b".nothing")


def test_a_directory_of_so_many_names_is_listed_and_of_more_is_a_temporary_failure(host: Host) -> None:
    host.directory("home/joe/d")
    for name in "abc":
        host.file(f"home/joe/d/{name}")
    directory = os.fsencode(host.root / "home/joe/d")
    assert sorted(calls.list_names(directory, 3)) == [b"a", b"b", b"c"]
    with pytest.raises(OSError, match="more than 2 names") as error:
        calls.list_names(directory, 2)
    assert error.value.errno in TEMPORARY
    with pytest.raises(NotADirectoryError):
        calls.list_names(directory + b"/a")


@pytest.fixture(params=["", "an old kernel"])
def old(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the kernel does not know openat2."""
    if request.param:
        monkeypatch.setattr(calls, "_OPENAT2", ctypes.c_long(9999))
    return bool(request.param)


def test_no_link_is_followed_at_the_end_and_none_on_the_way_if_the_kernel_knows_how(host: Host, old: bool) -> None:
    home = host.root / "home/joe"
    os.close(calls.open_without_links(os.fsencode(home / ".qmail-foo")))
    (home / "link").symlink_to(".qmail-foo")
    (host.root / "home/way").symlink_to("joe")
    refused = [home / "link"] if old else [home / "link", host.root / "home/way/.qmail-foo"]
    for path in refused:
        with pytest.raises(OSError, match=str(path)) as error:
            calls.open_without_links(os.fsencode(path))
        assert error.value.errno == errno.ELOOP
    assert calls.open_without_links(os.fsencode(home / "nothing")) is None
