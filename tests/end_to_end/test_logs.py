"""What docs/logs.md says of loggers, with the real ones: no line is torn, and `cvmctl log` reads what they wrote."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from calling import called
from hosts import Host
from serving import PATIENCE, Server, accepting, environment, serving, until

from cvm_qmail.cvmctl.host.log_entries import parse

pytestmark = pytest.mark.root

TOP = Path(__file__).parents[2]
CONFIGURATION = TOP / "contrib/logrotate/cvm-rcptto"
PAGE = (TOP / "docs/logs.md").read_text()

INTO = ("sh", "-c", 'exec "$@" >>"$0" 2>&1')
"""Starts a program with its output at the end of a file, or to a pipe that has a name."""

LOGGERS = {
    "svlogd": ["svlogd", "-tt", "main"],
    "multilog": ["multilog", "t", "s1000000", "n14", "./main"],
    "s6-log": ["s6-log", "t", "s1000000", "n14", "./main"],
}
"""As docs/logs.md has them, but for the directory."""


def names(paths: list[Path]) -> list[str]:
    """Whom requests were about, in the order of the log."""
    lines = called("log", "--domain", "example.org", *map(str, paths), env=environment(None, {})).stdout.splitlines()
    return [entry.address for line in lines if (entry := parse(line))]


def ask(server: Server, *accounts: str) -> list[str]:
    for account in accounts:
        server.ask(account)
    return [f"{account}@example.org" for account in accounts]


@contextmanager
def serving_into(log: Path, host: Host, workers: int = 1) -> Iterator[Server]:
    """A server whose output goes there; one worker's lines are in the order of its answers."""
    with serving(host, wrapper=(*INTO, log), wait=False, CVM_WORKERS=str(workers)) as server:
        until(lambda: server.path.exists() and accepting(server.path), "it serves")
        yield server


# -- a regular file --------------------------------------------------------------------------------------


class Rotated:
    """A log file with the configuration of contrib, and its own state."""

    def __init__(self, directory: Path) -> None:
        directory.chmod(0o755)
        self.log = directory / "cvm-rcptto.log"
        text = CONFIGURATION.read_text().replace("/var/log/cvm-rcptto.log", str(self.log))
        self._configuration, self._state = directory / "logrotate", directory / "state"
        self._configuration.write_text(text)

    def rotate(self) -> None:
        """Now."""
        command = ["logrotate", "--force", "--state", self._state, self._configuration]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    @property
    def old(self) -> Path:
        """The only file that it made."""
        (found,) = self.log.parent.glob("cvm-rcptto.log-*")
        return found


@pytest.fixture
def rotated(tmp_path: Path) -> Rotated:
    return Rotated(tmp_path)


@pytest.mark.peer("logrotate")
def test_logrotate_cuts_the_log_and_loses_nothing_of_a_quiet_server(host: Host, rotated: Rotated) -> None:
    with serving_into(rotated.log, host) as server:
        before = ask(server, "joe", "nobody", "ann")
        until(lambda: names([rotated.log]) == before, "the lines are there")
        rotated.rotate()
        after = ask(server, "ann", "joe-x")
        until(lambda: names([rotated.log]) == after, "the file begins anew")
        assert names([rotated.old]) == before
        assert b"\0" not in rotated.log.read_bytes()
    assert "Stopping." in rotated.log.read_text()


@pytest.mark.peer("logrotate")
def test_logrotate_tears_no_line_of_a_busy_one(host: Host, rotated: Rotated) -> None:
    with serving_into(rotated.log, host, workers=2) as server:
        bench = ["bench", server.module, "joe@example.org", "nobody@example.org", "--seconds", "3600"]
        load = subprocess.Popen(
            [Path(sys.executable).with_name("cvmctl"), *bench],
            env=environment(None, {"CVM_LOOKUP_SECRET": ""}),
            stdout=subprocess.DEVNULL,
        )
        until(lambda: rotated.log.stat().st_size > 100_000, "there is load")
        rotated.rotate()
        until(lambda: rotated.log.stat().st_size > 10_000, "it goes on")
        load.send_signal(signal.SIGINT)
        assert load.wait(PATIENCE) == 0
    lines = rotated.old.read_text().splitlines() + rotated.log.read_text().splitlines()
    whole = re.compile(r"[+-] (joe|nobody)@example\.org \w+ [a-z-]+ \S+ \d+us")
    torn = [line for line in lines if not whole.fullmatch(line) and not line.startswith(("cvm-qmail: ", "St"))]
    assert len(lines) > 1000
    assert len(torn) <= 1, "where the copy ended"


@pytest.mark.peer("logrotate")
def test_the_page_has_the_configuration() -> None:
    body = CONFIGURATION.read_text()
    assert body[body.index("\n/var/log") :] in PAGE


# -- loggers --------------------------------------------------------------------------------------------


@contextmanager
def logger(directory: Path, name: str) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A logger that reads a pipe which has a name, and keeps files in `main`."""
    pipe = directory / "pipe"
    os.mkfifo(pipe)
    (directory / "main").mkdir()
    kept = os.open(pipe, os.O_RDWR)
    process = subprocess.Popen(LOGGERS[name], stdin=kept, cwd=directory)
    try:
        yield pipe, process
    finally:
        os.close(kept)
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.peer(name)) for name in LOGGERS])
def test_loggers_write_what_cvmctl_reads_and_rotate_on_request(host: Host, tmp_path: Path, name: str) -> None:
    current = tmp_path / "main/current"
    with logger(tmp_path, name) as (pipe, process), serving_into(pipe, host) as server:
        before = ask(server, "joe", "nobody")
        until(lambda: current.exists() and names([current]) == before, "the lines are there")
        process.send_signal(signal.SIGALRM)
        old = until(lambda: sorted((tmp_path / "main").glob("@*")), "it has rotated")
        after = ask(server, "ann")
        until(lambda: current.exists() and names([current]) == after, "a new file")
        assert names([*old, current]) == before + after
        today = called("log", "--day", "today", "--user", "ann", "--summary", str(current), env=environment(None, {}))
        assert today.stdout.startswith("1 request\n")


def test_the_page_has_the_loggers() -> None:
    for command in LOGGERS.values():
        assert " ".join(command) in PAGE
