"""What docs/logs.md says of the journal, with a real systemd-journald in a mount namespace of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hosts import Host
from serving import PATIENCE, Server, accepting, environment, serving, until

JOURNALD = "/lib/systemd/systemd-journald"

pytestmark = [
    pytest.mark.root,
    pytest.mark.peer("systemd-cat", "journalctl", "nsenter", "unshare"),
    pytest.mark.skipif(not os.access(JOURNALD, os.X_OK), reason=f"PEER MISSING: {JOURNALD}"),
]

PAGE = (Path(__file__).parents[2] / "docs/logs.md").read_text()

NAME = "cvm-rcptto"

APART = f"""
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/journal /run/systemd/journald.conf.d
printf '[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=no\\n' >/run/systemd/journald.conf.d/test.conf
mkdir /run/etc
cp -a /etc/. /run/etc/
mount --bind /run/etc /etc
rm -f /etc/machine-id
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
exec {JOURNALD}
"""
"""A journal that is nobody else's, and that reads nothing of this host."""


class Journal(NamedTuple):
    """A journald that is running."""

    process: subprocess.Popen[bytes]

    @property
    def inside(self) -> tuple[str, ...]:
        """Starts a program where this journal is."""
        return ("nsenter", f"--target={self.process.pid}", "--mount")

    def sh(self, command: str) -> str:
        """What a command that reads the journal prints; `-u` finds what systemd started, `-t` what systemd-cat did."""
        done = subprocess.run(
            [*self.inside, "sh", "-c", by_name(command)],
            env=variables(),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def has(self, *texts: str) -> str:
        """The lines of the server, when all of these are among them."""

        def lines() -> str:
            found = self.sh("journalctl -u cvm-rcptto -o cat")
            return found if all(text in found for text in texts) else ""

        return until(lines, f"in the journal: {texts}")


def by_name(command: str) -> str:
    return command.replace(f"-u {NAME}", f"-q -t {NAME}")


def variables() -> dict[str, str]:
    """With cvmctl among the programs."""
    return environment(None, {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"})


@pytest.fixture
def journal() -> Iterator[Journal]:
    process = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-ec", APART])
    try:
        its_root = Path("/proc", str(process.pid), "root")
        inside = its_root / "run/systemd/journal/stdout"
        until(lambda: process.poll() is not None or inside.exists(), "the journal starts")
        assert process.poll() is None
        yield Journal(process)
    finally:
        process.terminate()
        process.wait(PATIENCE)


@contextmanager
def serving_into(journal: Journal, host: Host, **more: str) -> Iterator[Server]:
    """A server whose output goes there; one worker's lines are in the order of its answers."""
    wrapper = (*journal.inside, "systemd-cat", f"--identifier={NAME}")
    with serving(host, wrapper=wrapper, wait=False, CVM_WORKERS="1", **more) as server:
        until(lambda: server.path.exists() and accepting(server.path), "it serves")
        yield server


def commands_of_the_page() -> list[str]:
    return re.findall(r"^(journalctl -u .*\| cvmctl log.*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("form", ["text", "json"])
def test_cvmctl_log_reads_what_the_journal_kept(journal: Journal, host: Host, form: str) -> None:
    with serving_into(journal, host, CVM_LOG=form) as server:
        codes = [server.ask(name).code for name in ("joe", "nobody", "a\x01 b\\", "ann")]
        assert codes == [0, 100, 100, 0]
        kept = journal.has("ann").splitlines()
        assert journal.sh("journalctl -u cvm-rcptto -o cat | cvmctl log").splitlines() == kept
        assert any("Starting." in line for line in kept)
        rejected = journal.sh("journalctl -u cvm-rcptto -o cat | cvmctl log --outcome rejected").splitlines()
        assert [line for line in kept if "no-mailbox" in line] == rejected
        assert len(rejected) == 2
        assert "\x01" not in "".join(rejected)
        summary = journal.sh(
            "journalctl -u cvm-rcptto -o cat --since yesterday | cvmctl log --domain example.org --summary"
        )
        assert summary.startswith("4 requests\n         2  accepted\n         2  rejected\n")
        digest = journal.sh("journalctl -u cvm-rcptto -o cat | cvmctl log --domain example.org --digest text")
        assert "4 requests" in digest
        assert "no-mailbox" in digest
        assert "<html" in journal.sh("journalctl -u cvm-rcptto -o cat | cvmctl log --digest html")
    assert "Stopping." in journal.has("Stopping.")


def test_the_commands_of_the_page_print_what_was_rejected(journal: Journal, host: Host) -> None:
    with serving_into(journal, host) as server:
        server.ask("nobody")
        journal.has("nobody")
        commands = [command for command in commands_of_the_page() if not re.search(r" -f | --day ", command)]
        assert [re.search(r"--(summary|digest)", command) is not None for command in commands] == [True, True]
        for command in commands:
            assert "no-mailbox" in journal.sh(command.replace(" --until today", "")), command


def test_a_day_is_found_by_the_time_of_the_journal(journal: Journal, host: Host) -> None:
    (command,) = (command for command in commands_of_the_page() if " --day " in command)
    with serving_into(journal, host) as server:
        server.ask("joe")
        journal.has("joe@")
        (line,) = journal.sh("journalctl -u cvm-rcptto -o short-iso | cvmctl log --user joe").splitlines()
        days = {line.partition("T")[0]: line + "\n", "2001-01-01": ""}
        for day, found in days.items():
            assert journal.sh(command.replace("yesterday", day) + " --user joe") == found


def test_it_is_followed(journal: Journal, host: Host) -> None:
    (command,) = (command for command in commands_of_the_page() if " -f " in command)
    with serving_into(journal, host) as server:
        server.ask("nobody")
        journal.has("nobody")
        following = subprocess.Popen(
            [*journal.inside, "sh", "-c", by_name(command)],
            env=variables(),
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with following:
            try:
                assert following.stdout is not None
                assert "- nobody@example.org " in following.stdout.readline()
                server.ask("joe")
                server.ask("none")
                assert "- none@example.org " in following.stdout.readline()
            finally:
                os.killpg(following.pid, signal.SIGTERM)


def test_a_journal_that_is_gone_costs_no_answer(journal: Journal, host: Host) -> None:
    with serving_into(journal, host) as server:
        server.ask("joe")
        journal.has("joe@")
        journal.process.kill()
        journal.process.wait(PATIENCE)
        assert [server.ask(name).code for name in ("joe", "nobody", "ann")] == [0, 100, 0]
