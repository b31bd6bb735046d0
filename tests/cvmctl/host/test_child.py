"""A long look at a host, in a child: never for ever, and whole but for what hangs."""

from __future__ import annotations

import os
import signal
import time

import pytest
from serving import AN_HOUR, alive, until

from cvm_qmail.answer import Unavailable
from cvm_qmail.cvmctl.host.child import HUNG, Hung, below, in_child, mount_of, mounted
from cvm_qmail.cvmctl.ui.output import PERMANENT, TEMPORARY, Failure
from cvm_qmail.settings import BadSetting, Settings
from cvm_qmail.tables.door import HangGuard

HURRIED = Settings.from_environment({"CVM_LOOKUP_TIMEOUT": "400"})
"""Long enough for a child that waits for a processor."""
PATIENT = Settings.from_environment({"CVM_LOOKUP_TIMEOUT": AN_HOUR})


def hang() -> None:
    while True:
        signal.pause()


def test_what_is_found_comes_back() -> None:
    ours = os.getpid()
    assert in_child(PATIENT, lambda _: (b"x" * 3_000_000, os.getpid() != ours)) == (b"x" * 3_000_000, True)


def seen(hang_guard: HangGuard) -> list[tuple[bytes, str]]:
    """What becomes of three homes, of which one hangs."""
    found = []
    for place in (b"/home/joe", b"/dead/ann", b"/dead/ann/.qmail", b"/home/zoe"):
        try:
            hang_guard.mark(place)
            if place.startswith(b"/dead"):
                hang()
            found.append((place, "fine"))
        except Unavailable as error:
            found.append((error.where, error.reason))
    return found


def test_where_it_hangs_is_reported_and_the_rest_goes_on() -> None:
    assert in_child(HURRIED, seen) == [
        (b"/home/joe", "fine"),
        (b"/dead/ann", HUNG),
        (b"/dead/ann/.qmail", HUNG),
        (b"/home/zoe", "fine"),
    ]


def test_one_that_hangs_nobody_knows_where_is_given_up() -> None:
    with pytest.raises(Failure, match=r"^the host's own files: no answer within 0\.4 seconds$") as failure:
        in_child(HURRIED, lambda _: hang())
    assert failure.value.exit_code == TEMPORARY


def test_one_that_hangs_everywhere_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvm_qmail.cvmctl.host.child.LIMIT", 3)

    def look(hang_guard: HangGuard) -> None:
        for number in range(10):
            try:
                hang_guard.mark(b"/dead-%d" % number)
            except Unavailable:
                continue
            hang()

    with pytest.raises(Failure, match=r"^/dead-3: no answer within"):
        in_child(HURRIED, look)


def test_work_is_progress_too() -> None:
    def busy(hang_guard: HangGuard) -> str:
        hang_guard.mark(b"/home/joe")
        end = time.process_time() + 2 * asked.lookup_timeout
        while time.process_time() < end:
            pass
        return "done"

    asked = Settings.from_environment({"CVM_LOOKUP_TIMEOUT": "600"})  # beside other work it may wait for a processor
    assert in_child(asked, busy) == "done"


def test_an_error_is_the_same_error_here() -> None:
    def fails(_: HangGuard) -> None:
        raise Unavailable("cdb-damaged", "half a record", b"users/cdb")

    with pytest.raises(Unavailable) as error:
        in_child(PATIENT, fails)
    assert (error.value.reason, error.value.where) == ("cdb-damaged", b"users/cdb")


def test_a_wrong_setting_of_a_plug_in_is_no_fault() -> None:
    def fails(_: HangGuard) -> None:
        raise BadSetting("CVM_VPOPMAIL_VALIAS", "x", "one of files, sql")

    with pytest.raises(Failure) as failure:
        in_child(PATIENT, fails)
    assert failure.value.message == "CVM_VPOPMAIL_VALIAS: found 'x', expected one of files, sql"
    assert failure.value.exit_code == PERMANENT


def test_a_fault_is_reported_without_its_data() -> None:
    def fails(_: HangGuard) -> None:
        raise RuntimeError("s3cret")

    with pytest.raises(Failure, match=r"please report it: .*RuntimeError") as failure:
        in_child(PATIENT, fails)
    assert "s3cret" not in str(failure.value)


def test_a_child_that_is_killed_is_a_failure() -> None:
    with pytest.raises(Failure, match="was killed"):
        in_child(PATIENT, lambda _: os.kill(os.getpid(), signal.SIGKILL))


def test_a_child_that_hangs_dies_with_its_parent() -> None:
    ready, writing = os.pipe()
    parent = os.fork()
    if not parent:
        try:
            in_child(PATIENT, lambda _: (os.write(writing, b"%d\n" % os.getpid()), hang()))
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(ready, "rb") as line:
        child = int(line.readline())
        assert alive(child)
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        until(lambda: not alive(child), "the child is gone")


# -- what is skipped ------------------------------------------------------------------------------

MOUNTS = [b"/", b"/home", b"/home/far away", b"/var"]


def test_what_is_below_a_place_that_hung_is_skipped_too() -> None:
    hung = Hung(b"/var/qmail", MOUNTS)
    assert hung.add(b"/home/joe")
    assert b"/home/joe" in hung
    assert b"/home/joe/.qmail" in hung
    assert b"/home/joey" not in hung
    assert not hung.add(b"/home/joe/Maildir")


def test_the_second_place_on_a_mount_stands_for_all_of_it() -> None:
    hung = Hung(b"/var/qmail", MOUNTS)
    hung.add(b"/home/far away/joe")
    assert b"/home/far away/zoe" not in hung
    hung.add(b"/home/far away/ann")
    assert b"/home/far away/zoe" in hung
    assert b"/home/joe" not in hung


def test_but_never_for_what_qmail_is_on() -> None:
    hung = Hung(b"/var/qmail", MOUNTS)
    for place in (b"/var/joe", b"/var/ann"):
        hung.add(place)
    assert b"/var/zoe" not in hung


@pytest.mark.parametrize(
    ("place", "mount"), [(b"/home/far away/x", b"/home/far away"), (b"/homes/x", b"/"), (b"passwd", b"/")]
)
def test_the_mount_of_a_place(place: bytes, mount: bytes) -> None:
    assert mount_of(place, MOUNTS) == mount


def test_what_is_mounted_is_read() -> None:
    assert b"/proc" in mounted()
    assert below(b"/proc/self", mount_of(b"/proc/self", mounted()))
