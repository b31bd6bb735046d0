"""Log files: timestamps, compression, directories, order, and what cannot be read."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import lzma
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hosts import CORPUS

from cvm_qmail.cvmctl.audit.logfiles import LINE_LIMIT, LogFiles
from cvm_qmail.cvmctl.ui.output import Failure

RAW = CORPUS / "logs/plain-host.raw"
NAMES = sorted(path.stem for path in (CORPUS / "logs").glob("*.json"))


def texts(*paths: Path) -> list[bytes]:
    return [line.text for line in LogFiles(map(os.fsencode, paths)).read()]


@pytest.mark.parametrize("name", NAMES)
def test_every_form_of_the_corpuss_logs_has_the_same_text(name: str) -> None:
    directory = CORPUS / "logs"
    raw = (directory / f"{name}.raw").read_bytes().splitlines()
    forms = [path for path in directory.glob(f"{name}.*") if path.suffix != ".json"]
    assert len(forms) >= 6
    for form in forms:
        assert texts(form) == raw, form


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compression_is_recognized_by_the_bytes_not_by_the_name(tmp_path: Path, compress: object) -> None:
    (tmp_path / "current").write_bytes(compress(RAW.read_bytes()))
    assert texts(tmp_path / "current") == RAW.read_bytes().splitlines()


@pytest.mark.peer("zstd")
def test_zstd_is_read_or_the_way_out_is_named(tmp_path: Path) -> None:
    subprocess.run(["zstd", "-q", RAW, "-o", tmp_path / "log.zst"], check=True, timeout=30)
    if importlib.util.find_spec("zstandard") is None:  # not a dependency
        with pytest.raises(Failure, match=r"log\.zst.*zstd.*zstdcat"):
            texts(tmp_path / "log.zst")
    else:
        assert texts(tmp_path / "log.zst") == RAW.read_bytes().splitlines()


def test_a_damaged_file_is_read_as_far_as_it_goes_and_named(tmp_path: Path) -> None:
    whole = gzip.compress(RAW.read_bytes())
    (tmp_path / "cut.gz").write_bytes(whole[: len(whole) // 2])
    files = LogFiles([os.fsencode(tmp_path / "cut.gz"), os.fsencode(tmp_path / "absent"), os.fsencode(RAW)])
    assert list(files.read())[-1].text == RAW.read_bytes().splitlines()[-1]
    assert [Path(name).name for name, _ in files.damaged] == ["cut.gz", "absent"]
    assert "No such file" in files.damaged[1][1]


def test_files_are_read_by_the_time_of_their_first_lines(tmp_path: Path) -> None:
    (tmp_path / "mail.log").write_text("@400000006b0129ff00000000 c\n")
    (tmp_path / "mail.log.1").write_text("@400000006b0129fd00000000 a\n@400000006b0129fe00000000 b\n")
    (tmp_path / "empty").write_text("")
    assert texts(tmp_path / "mail.log", tmp_path / "mail.log.1", tmp_path / "empty") == [b"a", b"b", b"c"]


def test_files_without_times_are_read_as_given(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("new msg 1\n")
    (tmp_path / "a").write_text("new msg 2\n")
    assert texts(tmp_path / "b", tmp_path / "a") == [b"new msg 1", b"new msg 2"]


def test_files_that_overlap_are_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copy(CORPUS / "logs/plain-host.tai64n", tmp_path / name)
    files = LogFiles([os.fsencode(tmp_path)])
    assert len(list(files.read())) == files.lines
    assert [Path(name).name for name in files.overlaps] == ["b"]


def test_in_a_directory_only_plain_files_are_read_and_the_rest_is_named(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    log = tmp_path / "log"
    log.mkdir()
    (log / "current").write_text("new msg 1\n")
    for passing in ("lock", "state", "newstate", "config", "@4000.t"):
        (log / passing).write_text("no log\n")
    (log / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(log / "fifo")
    (log / "directory").mkdir()
    files = LogFiles([os.fsencode(log)])
    assert [line.text for line in files.read()] == [b"new msg 1"]
    assert sorted(Path(name).name for name in files.passed_over) == ["directory", "fifo", "link"]


def test_a_file_that_another_one_has_replaced_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "current").write_text("new msg 1\n")
    files = LogFiles([os.fsencode(tmp_path)])
    (tmp_path / "current").rename(tmp_path / "@4000.s")
    (tmp_path / "current").write_text("new msg 2\n")
    assert list(files.read()) == []
    assert "another file has taken its place" in files.damaged[0][1]


def test_a_fifo_that_was_named_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    writer = subprocess.Popen(["sh", "-c", 'echo "new msg 1" > "$0"', tmp_path / "fifo"])
    with open(tmp_path / "fifo", "rb"):  # so that the writer is there before the log is opened
        assert texts(tmp_path / "fifo") == [b"new msg 1"]
    assert writer.wait(20) == 0


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * (3 * LINE_LIMIT) + b"\nnew msg 1\nend msg 1")
    files = LogFiles([os.fsencode(tmp_path / "log")])
    assert [line.text for line in files.read()] == [b"new msg 1", b"end msg 1"]
    assert (files.lines, files.too_long) == (3, 1)


def test_what_splogger_cut_is_joined_and_only_that(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(
        "1795238371.650083 a\n"
        "1795238371.650083+b\n"
        "Nov 21 05:19:31 mx1 sshd[7]: other\n"
        "1795238371.650083+c\n"
        "1795238372.650083+d\n"
    )
    assert texts(tmp_path / "log") == [b"abc", b"d"]
