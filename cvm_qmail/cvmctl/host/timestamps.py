"""When a line of a log was written: the stamps of any logger.

    @400000006b0129ed26b080bc new msg 7                      multilog t, svlogd -t, s6-log t
    2026-11-21_05:19:31.64906 new msg 7                      svlogd -tt (with T: -ttt); with a blank: tai64nlocal
    Nov 21 05:19:31 mx1 qmail: 1795238371.650083 new msg 7   splogger through a syslog daemon
    Nov 21 05:19:31 mx1 qmail-send[9]: new msg 7             without splogger, through systemd's journal, say
    1795238371.650083 new msg 7                              splogger, without what the daemon adds
    new msg 7                                                as it was printed

splogger cuts long lines: a ``+`` instead of the blank after its stamp continues the line before.

Source: multilog(8), svlogd(8), splogger(8), tai64nlocal(8).
"""

from __future__ import annotations

import re
from calendar import timegm
from functools import lru_cache
from typing import NamedTuple

TAI_OFFSET = (1 << 62) + 10
"""The TAI64N label of 1970-01-01 00:00:00 UTC, by multilog's clock."""

LATEST = 1 << 35
"""Seconds since 1970 beyond which a time is not plausible."""

_TAI = re.compile(rb"@([0-9a-f]{16})[0-9a-f]{8} ?")
_DATE = re.compile(rb"(\d{4}-\d\d-\d\d)[_T ](\d\d):(\d\d):(\d\d)(?:\.\d+)?(?: |(?=Z|[+-]))")
_SYSLOG = re.compile(
    rb"(?:<\d{1,3}>)?(?:[A-Z][a-z]{2} [ 0-3]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT[\d:.]{8,18}(?:Z|[+-]\d\d:?\d\d)) "
)
_TAGGED = re.compile(rb"\S+ qmail(?:-send)?(?:\[\d+\])?: ")
_SPLOGGER = re.compile(rb"(?:\S+ [^\s:]+: )?(\d{9,11})\.\d{6}([ +])")


class Line(NamedTuple):
    """A log line without its timestamp prefix."""

    when: int | None
    """Seconds since 1970, UTC (or local time, if the log has that); None: it has no time."""
    text: bytes
    continues: bool = False
    """Whether this is the continuation of the line before."""


def strip_timestamp(line: bytes) -> Line | None:
    """A line of a log file without its end; None: another program's."""
    if match := _TAI.match(line):
        return Line(_sane(int(match[1], 16) - TAI_OFFSET), line[match.end() :])
    syslog = _SYSLOG.match(line)
    if syslog is None and (match := _DATE.match(line)):
        return Line(_seconds(*match.groups()), line[match.end() :])
    begin = syslog.end() if syslog else 0
    if match := _SPLOGGER.match(line, begin):
        return Line(_sane(int(match[1])), line[match.end() :], continues=match[2] == b"+")
    if syslog is None:
        return Line(None, line)
    match = _TAGGED.match(line, begin)
    if match is None:
        return None
    date = _DATE.match(line)  # the other kind has no year
    return Line(_seconds(*date.groups()) if date else None, line[match.end() :])


def time_of(line: bytes) -> int | None:
    """When a line of any program was written, in seconds since 1970 by its own clock; None: it does not show that.

    A date without a year is not enough.
    """
    if match := _TAI.match(line):
        return _sane(int(match[1], 16) - TAI_OFFSET)
    match = _DATE.match(line)
    return _seconds(*match.groups()) if match else None


def _sane(seconds: int) -> int | None:
    return seconds if 0 <= seconds < LATEST else None


def _seconds(date: bytes, hour: bytes, minute: bytes, second: bytes) -> int | None:
    midnight = _midnight(date)
    return None if midnight is None else midnight + int(hour) * 3600 + int(minute) * 60 + int(second)


@lru_cache(maxsize=64)
def _midnight(date: bytes) -> int | None:
    year, month, day = map(int, date.split(b"-"))
    if not (year >= 1970 and 1 <= month <= 12 and 1 <= day <= 31):
        return None
    return timegm((year, month, day, 0, 0, 0))
