"""When a line of a log was written, whatever logger wrote it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvm_qmail.cvmctl.host.timestamps import Line, strip_timestamp


@pytest.mark.parametrize(
    ("line", "when"),
    [
        (b"@400000006b0129ed26b080bc new msg 7", 1795238371),
        (b"2026-11-21_05:19:31.64906 new msg 7", 1795238371),
        (b"2026-11-21T05:19:31.64906 new msg 7", 1795238371),
        (b"2026-11-21 05:19:31.649063500 new msg 7", 1795238371),
        (b"Nov 21 05:19:31 mx1 qmail: 1795238371.650083 new msg 7", 1795238371),
        (b"Nov  1 05:19:31 mx1 qmail[99]: 1795238371.650083 new msg 7", 1795238371),
        (b"<22>Nov 21 05:19:31 mx1 qmail: 1795238371.650083 new msg 7", 1795238371),
        (b"2026-11-21T05:19:31.650083+00:00 mx1 qmail: 1795238371.650083 new msg 7", 1795238371),
        (b"1795238371.650083 new msg 7", 1795238371),
        (b"Nov 21 05:19:31 mx1 qmail-send[9]: new msg 7", None),
        (b"2026-11-21T05:19:31.65+01:00 mx1 qmail: new msg 7", 1795238371),
        (b"2026-11-21T05:19:31+0000 mx1 qmail-send[9]: new msg 7", 1795238371),
        (b"new msg 7", None),
        (b"2026-99-99_05:19:31.64906 new msg 7", None),
        (b"@ffffffffffffffff26b080bc new msg 7", None),
    ],
)
def test_a_line_is_the_same_with_every_timestamp(line: bytes, when: int | None) -> None:
    assert strip_timestamp(line) == Line(when, b"new msg 7")


def test_lines_of_other_programs_in_a_syslog_are_skipped() -> None:
    assert strip_timestamp(b"Nov 21 05:19:31 mx1 qmail-smtpd[7]: new msg 7") is None
    assert strip_timestamp(b"Nov 21 05:19:31 mx1 sshd[7]: new msg 7") is None
    assert strip_timestamp(b"2026-11-21T05:19:31+01:00 mx1 kernel: oops") is None


@given(st.binary(max_size=200))
def test_no_line_is_too_odd(line: bytes) -> None:
    stripped = strip_timestamp(line)
    assert stripped is None or line.endswith(stripped.text)
