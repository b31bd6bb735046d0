"""Counters of real servers: what was answered is what is counted, and the file comes and goes with the server."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from hosts import Host, temporary_directory
from serving import PLUGINS, serving, until

from cvm_qmail.answer import Answer, Unavailable, Verdict
from cvm_qmail.observe.counters import WORDS, Counters
from cvm_qmail.observe.stats import BUCKETS, About, OtherVersion, StatsFile, read
from cvm_qmail.protocols.cvm.client import NoAnswer
from cvm_qmail.service.events import NO_QUERY, Event

ABOUT = About("cvm-qmail", "1", "/s", os.getpid(), 1.0, "cvm", "auto", 1, {}, WORDS)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "s.stats")


def event(outcome: Answer | Unavailable, began: float = 0.0) -> Event:
    return Event(NO_QUERY, outcome, began)


def test_columns_are_added_up(path: str) -> None:
    file = StatsFile(path, ABOUT, 3)
    no, yes = Answer(Verdict.REJECTED, "no-mailbox"), Answer(Verdict.ACCEPTED, "mailbox")
    for number, outcomes in enumerate([[yes, no], [no, Unavailable("home")], []]):
        counters = Counters(file.column(number), lambda: 0.0015)
        for outcome in outcomes:
            counters.repeat(counters.request(event(outcome)), 0.0)
    found = read(path)
    assert found.requests == {
        ("accepted", "mailbox"): 2,
        ("rejected", "no-mailbox"): 4,
        ("temporary failure", "home"): 2,
    }
    assert (found.total, found.repeats) == (8, 4)
    assert found.seconds == pytest.approx(0.012)
    assert found.percentile(0.5) == next(bound for bound in BUCKETS if bound >= 0.0015)
    assert found.outcomes() == {"accepted": 2, "rejected": 4, "temporary failure": 2}


def test_a_word_that_nobody_declared_counts_as_other_of_its_outcome(path: str) -> None:
    counters = Counters(StatsFile(path, ABOUT, 1).column(0), lambda: 0.0)
    for verdict in Verdict:
        counters.request(event(Answer(verdict, "made-up")))
        counters.request(event(Answer(verdict, "made-up-too")))
    counters.request(event(Unavailable("made-up")))
    other = {(verdict.word, "other"): 2 for verdict in Verdict}
    assert read(path).requests == {**other, ("temporary failure", "other"): 1}


def test_every_reason_of_every_outcome_has_a_cell(path: str) -> None:
    counters = Counters(StatsFile(path, ABOUT, 1).column(0), lambda: 0.0)
    verdicts = {verdict.word: verdict for verdict in Verdict}
    for word in WORDS:
        outcome, _, reason = word.partition("/")
        verdict = verdicts.get(outcome)
        counters.request(event(Unavailable(reason) if verdict is None else Answer(verdict, reason)))
    assert read(path).requests == {tuple(word.split("/")): 1 for word in WORDS}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda _: b"", "not a file of counters"),
        (lambda data: b"x" * len(data), "not a file of counters"),
        (lambda data: data[:8] + b"\1" + data[9:], "layout 1, expected 2"),
        (lambda data: data[:-100], "bytes, expected"),
    ],
)
def test_a_file_of_another_kind_is_named(path: str, spoil: object, said: str) -> None:
    StatsFile(path, ABOUT, 1)
    assert callable(spoil)
    Path(path).write_bytes(spoil(Path(path).read_bytes()))
    with pytest.raises(OtherVersion, match=said):
        read(path)


def test_a_file_is_removed_by_its_own_server_only(path: str) -> None:
    first, second = StatsFile(path, ABOUT, 1), StatsFile(path, ABOUT, 1)
    first.remove()
    assert Path(path).exists()
    second.remove()
    assert not Path(path).exists()


# -- real servers ---------------------------------------------------------------------------------------


@pytest.mark.root
def test_a_server_counts_what_it_answers(host: Host) -> None:
    with serving(host, CVM_WORKERS="1", CVM_LOOKUP_SECRET="") as server:
        for _ in range(5):
            assert [server.ask(name).code for name in ("joe", "nobody")] == [0, 100]
        server.send(b"\3")
        stats = f"{server.path}.stats"
        found = read(stats)
        assert stat.S_IMODE(os.stat(stats).st_mode) == 0o644
        assert (found.about.pid, found.about.user) == (server.process.pid, "root")
        until(lambda: read(stats).supervisor["workers"] == 1, "the supervisor shows its gauges")
        until(lambda: all(process.about for process in read(stats).processes), "each worker describes itself")
        assert {process.pid for process in read(stats).processes} == set(server.workers())
        assert {process.about["sandbox"]["process"] for process in read(stats).processes} == {"worker"}
    assert found.requests["accepted", "mailbox"] == 5
    assert found.requests["rejected", "no-mailbox"] == 5
    assert found.requests["temporary failure", "malformed"] == 1
    assert not Path(stats).exists()


A_PLUGINS_SETTINGS = """
from cvm_qmail.settings import Setting, optional

SETTINGS = {
    "password": Setting("TRY_PASSWORD", "unset", optional, "a password", secret=True),
    "user": Setting("TRY_USER", "unset", optional, "a name"),
}
"""


@pytest.mark.root
def test_no_secret_is_in_the_file(host: Host, tmp_path: Path) -> None:
    (tmp_path / "trying.py").write_text(A_PLUGINS_SETTINGS)
    (tmp_path / "trying-1.0.dist-info").mkdir()
    (tmp_path / "trying-1.0.dist-info/entry_points.txt").write_text("[cvm_qmail.settings]\ntrying = trying:SETTINGS\n")
    more = {"TRY_PASSWORD": "open-barley", "TRY_USER": "ali", "CVM_GATEWAY_TOKEN": "open-wheat" * 4}
    with serving(host, CVM_LOOKUP_SECRET="open-sesame", PYTHONPATH=str(tmp_path), **more) as server:
        text = Path(f"{server.path}.stats").read_bytes()
        found = read(f"{server.path}.stats").about.settings
    assert b"open-" not in text
    secrets = ("CVM_LOOKUP_SECRET", "CVM_GATEWAY_TOKEN", "TRY_PASSWORD")
    assert {name: found[name] for name in (*secrets, "TRY_USER")} == dict.fromkeys(secrets, "(set)") | {
        "TRY_USER": "ali"
    }


@pytest.mark.root
def test_hangs_and_restarts_are_counted(host: Host) -> None:
    host.file("home/joe/.qmail-hang", "|hang\n", uid=5001)
    host.file("home/ann/.qmail-die", "|die\n", uid=5002)
    with serving(host, PYTHONPATH=PLUGINS, CVM_LOOKUP_TIMEOUT="1000") as server:
        for name in ("joe-hang", "ann-die"):
            with suppress(NoAnswer):
                server.ask(name)
        stats = f"{server.path}.stats"
        until(lambda: read(stats).supervisor["hangs"] == 1, "the hang is counted")
        until(lambda: read(stats).supervisor["restarts"] == 1, "the death is counted")


@pytest.mark.root
def test_a_path_of_its_own_or_none(host: Host) -> None:
    with temporary_directory() as directory:
        path = directory / "counters"
        with serving(host, CVM_STATS=str(path)) as server:
            server.ask("joe")
            assert read(str(path)).total == 1
            assert not Path(f"{server.path}.stats").exists()
    with serving(host, CVM_STATS="") as server:
        assert server.ask("joe").code == 0
        assert not Path(f"{server.path}.stats").exists()


@pytest.mark.root
def test_a_file_that_cannot_be_made_is_a_warning(host: Host) -> None:
    with serving(host, CVM_STATS="/no-such-directory/s") as server:
        assert server.ask("joe").code == 0
        assert server.warned("no counters: /no-such-directory/s: No such file or directory")


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_file_of_counters_is_never_replaced(host: Host, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "precious"
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        (tmp_path / "target").write_text("years of work")
        path.symlink_to("target")
    else:
        path.write_text("years of work")
    with serving(host, CVM_STATS=str(path)) as server:
        assert server.warned(f"no counters: {path}: ")
        assert server.ask("joe").code == 0
    assert path.is_dir() if kind == "directory" else path.read_text() == "years of work"
    assert path.is_symlink() == (kind == "link")
    assert [*tmp_path.glob("precious.*")] == []


@pytest.mark.root
def test_a_server_that_takes_over_counts_anew(host: Host) -> None:
    with serving(host) as first:
        first.ask("joe")
        with serving(host, "--takeover", path=first.path) as second:
            until(lambda: read(f"{first.path}.stats").about.pid == second.process.pid, "the new file is there")
            second.ask("joe")
            first.process.wait(20)
            assert read(f"{first.path}.stats").total == 1
