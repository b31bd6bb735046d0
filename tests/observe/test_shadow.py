"""Shadow mode: another module is asked after the answer, differences are logged, and answers never wait for it.

The whole way from a worker to the log, with real servers; and the parts of it alone.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from end_to_end.test_c_program import C_PROGRAM, c_serving, wrapped
from events import event
from hosts import Host, plain_host, temporary_directory
from observe.test_comparison import JOE, REFUSED, response
from serving import AN_HOUR, CVM_QMAIL, PATIENCE, Server, alive, request, run, serving, until

from cvm_qmail.observe.log import Log
from cvm_qmail.observe.shadow import (
    NICENESS,
    PAUSE,
    STALE,
    Follower,
    Uncompared,
    check,
    follow,
    question,
)
from cvm_qmail.protocols.cvm import client, packets
from cvm_qmail.protocols.cvm.packets import Credential
from cvm_qmail.protocols.cvm.responder import code_of
from cvm_qmail.service.events import NO_QUERY, Event
from cvm_qmail.settings import BadSetting

pytestmark = pytest.mark.root

PACKET = request("nobody")
REJECTION = packets.pack_response(2, b"", 100, [(16, b"0")])


def rejected(began: float = 0.0, where: bytes = b"/alias", detail: str = "", response: bytes = REJECTION) -> Event:
    """An event as a worker reports it."""
    return event(
        "-",
        b"nobody",
        user=b"alias",
        reason="no-mailbox",
        where=where,
        detail=detail,
        began=began,
        request=PACKET,
        response=response,
    )


# -- a worker's side --------------------------------------------------------------------------------


class Time:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Lines:
    """A log in a file."""

    def __init__(self, directory: Path, clock: Time) -> None:
        self.path = directory / "log"
        self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.log = Log(self.fd, "text", clock, code_of)

    def __call__(self) -> list[str]:
        return self.path.read_text().splitlines()


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def lines(clock: Time) -> Iterator[Lines]:
    with temporary_directory() as directory:
        made = Lines(directory, clock)
        yield made
        os.close(made.fd)


@contextmanager
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Where answers come out, and where they go in."""
    receiving, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with receiving, sending:
        yield receiving, sending


def test_nothing_is_sent_before_the_response(clock: Time, lines: Lines) -> None:
    with channel() as (receiving, sending):
        follower = Follower(sending, lines.log, clock)
        follower.flush()
        follower.request(rejected())
        receiving.setblocking(False)
        with pytest.raises(BlockingIOError):
            receiving.recv(10)
        follower.settle()
        assert receiving.recv(4096)
        follower.settle()
        follower.flush()
        with pytest.raises(BlockingIOError):
            receiving.recv(10)


def test_a_cached_response_is_sent_on_as_well(clock: Time, lines: Lines) -> None:
    with channel() as (receiving, sending):
        follower = Follower(sending, lines.log, clock)
        token = follower.request(rejected())
        follower.settle()
        follower.repeat(token, 7.0)
        follower.settle()
        first, second = receiving.recv(4096), receiving.recv(4096)
    assert (len(first), PACKET in first, PACKET in second) == (len(second), True, True)


def test_a_malformed_request_is_not_sent_on(clock: Time, lines: Lines) -> None:
    with channel() as (receiving, sending):
        follower = Follower(sending, lines.log, clock)
        follower.request(rejected()._replace(query=NO_QUERY))
        follower.settle()
        receiving.setblocking(False)
        with pytest.raises(BlockingIOError):
            receiving.recv(10)


def test_what_another_shadow_asks_is_not_sent_on(clock: Time, lines: Lines) -> None:
    with channel() as (receiving, sending):
        follower = Follower(sending, lines.log, clock)
        asked = rejected()
        token = follower.request(asked._replace(query=asked.query._replace(from_shadow=True)))
        follower.settle()
        follower.repeat(token, 7.0)
        follower.settle()
        receiving.setblocking(False)
        with pytest.raises(BlockingIOError):
            receiving.recv(10)


@pytest.mark.parametrize(
    ("packet", "looks_up", "asked"),
    [
        (request("joe", nonce=b"n"), True, packets.Request(2, b"n", {1: b"joe", 2: b"example.org", 241: b""})),
        (b"\1joe\0x\0word\0\0", True, packets.Request(2, b"", {1: b"joe", 2: b"x", 4: b"word", 241: b""})),
        (b"\1joe\0x\0word\0\0", False, packets.Request(2, b"", {1: b"joe", 2: b"x", 3: b"word", 241: b""})),
        (b"\2\0\1\3joe\xf0\0\0", True, packets.Request(2, b"", {1: b"joe", 241: b""})),
    ],
)
def test_the_question_has_the_credentials_and_the_mark(packet: bytes, looks_up: bool, asked: packets.Request) -> None:
    assert packets.parse_request(question(packet, looks_up=looks_up)) == asked


def answering(follower: Follower, answered: Event) -> None:
    """One request, answered by a worker."""
    follower.request(answered)
    follower.settle()


def test_what_nobody_takes_is_counted_at_once_and_then_once_a_minute(clock: Time, lines: Lines) -> None:
    with channel() as (_, sending):
        follower = Follower(sending, lines.log, clock)
        while not (said := [line for line in lines() if "shadow" in line]):
            answering(follower, rejected())
        assert said == ["? shadow: 1 answers were not compared; the last: too many are waiting for the other module"]
        for _ in range(7):
            answering(follower, rejected())
        clock.now += PAUSE - 1
        follower.flush()
        assert sum("shadow" in line for line in lines()) == 1
        clock.now += 1
        follower.flush()
        assert "? shadow: 7 answers were not compared" in lines()[-1]


# -- the process that asks --------------------------------------------------------------------------


def following(lines: Lines, clock: Time, theirs: packets.Response | str, *answered: Event) -> list[str]:
    """What is logged of these answers if the other module always answers so (text: why it does not)."""

    def asks(packet: bytes) -> packets.Response:
        assert packet == PACKET
        if isinstance(theirs, str):
            raise client.NoAnswer(theirs)
        return theirs

    with channel() as (receiving, sending):
        follower = Follower(sending, lines.log, clock)
        for each in answered:
            answering(follower, each)
        sending.close()
        before = len(lines())
        follow(receiving, asks, lines.log, clock)
    return lines()[before:]


def test_only_differences_are_logged(clock: Time, lines: Lines) -> None:
    answered = rejected(began=clock.now)
    assert following(lines, clock, REFUSED, answered) == []
    assert following(lines, clock, response(0, *JOE), answered) == [
        "! nobody@example.org alias no-mailbox /alias 0us here 100 out of scope 0, there 0"
    ]


def test_an_old_answer_is_not_compared_since_files_change(clock: Time, lines: Lines) -> None:
    answered = rejected(began=clock.now - STALE - 1)
    assert following(lines, clock, response(0, *JOE), answered) == [
        "? shadow: 1 answers were not compared; the last: it waited too long for the other module"
    ]


def test_a_module_that_does_not_answer_is_reported_once_a_minute(clock: Time, lines: Lines) -> None:
    answered = rejected(began=clock.now)
    assert following(lines, clock, "m: no answer", answered, answered, answered) == [
        "? shadow: 1 answers were not compared; the last: m: no answer"
    ]


def test_a_count_is_said_when_its_time_has_come_without_another_one(clock: Time, lines: Lines) -> None:
    uncompared = Uncompared(lines.log, clock)
    assert uncompared.wait is None
    uncompared.add("why")
    assert uncompared.wait is None, "said already"
    uncompared.add("why")
    assert uncompared.wait == PAUSE
    clock.now += PAUSE
    assert uncompared.wait == 0
    uncompared.report()
    assert len(lines()) == 2


def test_what_came_from_outside_is_escaped_and_cut(clock: Time, lines: Lines) -> None:
    answered = rejected(began=clock.now, where=b"\n" * 100_000)
    said = following(lines, clock, response(0, (5, b"\n! forged")), answered)
    assert len(said) == 1
    assert said[0].startswith(r"! nobody@example.org alias no-mailbox \x0a")


# -- the setting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["cvm-local:", "cvm-udp:nowhere", "cvm-udp:x:0", "cvm-command:"])
def test_what_is_no_module_is_refused(module: str) -> None:
    with pytest.raises(BadSetting, match=r"CVM_SHADOW: found .*, expected cvm-local:PATH"):
        check(module, "/x")


def test_a_server_is_not_its_own_shadow_by_whatever_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "socket")
    for module in (f"cvm-local:{tmp_path}/socket", f"cvm-local:{tmp_path}/link", f"cvm-local:{tmp_path}/./socket"):
        with pytest.raises(BadSetting, match="expected another server than this one"):
            check(module, f"{tmp_path}/socket")
    with pytest.raises(BadSetting, match="expected another server"):
        check("cvm-udp:localhost:1234", "127.0.0.1:1234")
    check(f"cvm-local:{tmp_path}/other", f"{tmp_path}/socket")
    check("cvm-udp:127.0.0.1:1235", "127.0.0.1:1234")
    check("cvm-qmail", "cvm-qmail")


def test_the_server_says_so_at_start(host: Host) -> None:
    with temporary_directory() as directory:
        done = run(f"cvm-local:{directory}/s", host=host, CVM_SHADOW=f"cvm-local:{directory}/s")
        assert (done.returncode, os.listdir(directory)) == (100, [])
        assert b"CVM_SHADOW: found" in done.stderr


# -- servers ----------------------------------------------------------------------------------------


@contextmanager
def another_host() -> Iterator[Host]:
    """A plain host on which bob has a mailbox, and joe has not got -foo."""
    with temporary_directory() as directory:
        host = plain_host(directory)
        host.user("bob", 5003)
        host.passwd("joe:x:5001:5001::{root}/home/joe:/bin/sh", "bob:x:5003:5003::{root}/home/bob:/bin/sh")
        (directory / "home/joe/.qmail-foo").unlink()
        yield host


def are_logged(server: Server, count: int) -> bool:
    return len(differences(server)) == count


def differences(server: Server, *until_of: str) -> list[str]:
    """The lines with ``!`` without their times, when there is one of each of these addresses."""
    for address in until_of:
        server.logged(f"! {address}@")
    return [re.sub(r" \d+us ", " ", line) for line in server.log.read_text().splitlines() if line[0] == "!"]


@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp"])
def test_differences_of_two_servers_are_logged_and_agreement_is_not(host: Host, scheme: str) -> None:
    with (
        another_host() as other,
        serving(other, scheme=scheme) as theirs,
        serving(host, CVM_SHADOW=theirs.module, scheme=scheme) as server,
    ):
        assert [server.ask(name).code for name in ("nobody", "joe-foo", "bob", "postmaster")] == [100, 0, 100, 0]
        said = differences(server, "joe-foo", "bob", "postmaster")
        home, root = host.root / "home/joe", other.root
        assert f"! joe-foo@example.org joe dotqmail {home}/.qmail-foo here 0, there 100 out of scope 0" in said
        assert f"! bob@example.org alias no-mailbox {host.root}/alias here 100 out of scope 0, there 0" in said
        (of_postmaster,) = [line for line in said if "postmaster" in line]
        assert f"DIRECTORY here {host.root}/alias, there {root}/alias" in of_postmaster
        assert not [line for line in said if "nobody" in line]


def test_two_servers_may_be_each_others_shadow(host: Host) -> None:
    with another_host() as other, temporary_directory() as directory:
        one, two = directory / "one", directory / "two"
        with (
            serving(host, path=one, CVM_SHADOW=f"cvm-local:{two}") as server,
            serving(other, path=two, CVM_SHADOW=f"cvm-local:{one}") as theirs,
        ):
            assert [server.ask("bob").code, theirs.ask("joe-foo").code] == [100, 100]
            assert len(differences(server, "bob")) == 1
            assert len(differences(theirs, "joe-foo")) == 1
            for asked in (server, theirs):
                asked.stop()
                answered = [line for line in asked.log.read_text().splitlines() if line[0] in "+-"]
                assert sorted(line.split()[1] for line in answered) == ["bob@example.org", "joe-foo@example.org"]


def test_an_answer_from_memory_is_compared_too(host: Host) -> None:
    """One worker, so that it is the one that remembers."""
    with (
        another_host() as other,
        serving(other) as theirs,
        serving(host, CVM_SHADOW=theirs.module, CVM_WORKERS="1") as server,
    ):
        for times in range(1, 7):
            assert server.ask("bob").code == 100
            until(partial(are_logged, server, times), "another difference")


def test_a_command_is_started_for_each_request(host: Host) -> None:
    with another_host() as other:
        program = host.root / "other"
        program.write_text(
            f"#!/bin/sh\nQMAIL_ROOT={other.root} NSS_WRAPPER_PASSWD={other.root}/passwd exec {CVM_QMAIL}\n"
        )
        program.chmod(0o755)
        with serving(host, CVM_SHADOW=f"cvm-command:{program}", CVM_LOOKUP_TIMEOUT=AN_HOUR) as server:
            assert server.ask("bob").code == 100
            server.logged("! bob@example.org alias no-mailbox")


def test_as_json(host: Host) -> None:
    with (
        another_host() as other,
        serving(other) as theirs,
        serving(host, CVM_SHADOW=theirs.module, CVM_LOG="json") as server,
    ):
        server.ask("bob")
        said = json.loads(server.logged('"!"'))
    assert (said["account"], said["code"], said["reason"]) == ("bob", 100, "no-mailbox")
    assert said["detail"] == "here 100 out of scope 0, there 0"


def test_secrets_and_passwords_go_to_the_shadow_and_never_to_the_log(host: Host) -> None:
    credentials = {Credential.ACCOUNT: b"bob", Credential.DOMAIN: b"example.org"}
    credentials |= {Credential.PASSWORD: b"sw0rdfish", Credential.SECRET: b"s3same"}
    packet = packets.pack_request(packets.Request(2, b"12345678", credentials))
    with recording() as (module, received), serving(host, CVM_SHADOW=module, CVM_LOOKUP_SECRET="s3same") as server:
        assert server.send(packet)[0] == 100
        server.logged("! bob@example.org")
        assert received == [packets.pack_request(packets.Request(2, b"12345678", {**credentials, 241: b""}))]
        assert not re.search("s3same|sw0rdfish", server.log.read_text() + server.errors.read_text())


@contextmanager
def recording(reply: bytes = b"\0\x0812345678\1\3bob\0") -> Iterator[tuple[str, list[bytes]]]:
    """A module that takes one request down, and answers it so."""
    received: list[bytes] = []
    with temporary_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "s"))
        listener.listen()
        listener.settimeout(PATIENCE)

        def serve() -> None:
            with listener.accept()[0] as connection:
                packet = b""
                while data := connection.recv(4096):
                    packet += data
                received.append(packet)
                connection.sendall(reply)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"cvm-local:{directory}/s", received
        thread.join(PATIENCE)


def test_what_is_no_request_does_not_reach_the_shadow(host: Host) -> None:
    with recording() as (module, received), serving(host, CVM_SHADOW=module, CVM_WORKERS="1") as server:
        for nonsense in (b"", b"\2", b"\2\xff", b"\2\0\0\0", b"\7"):
            server.send(nonsense)
        server.ask("bob")
        until(lambda: received, "the first request that is one")
        assert [packets.parse_request(packet).credentials[1] for packet in received] == [b"bob"]


# -- a shadow that is no help -----------------------------------------------------------------------


@contextmanager
def silent() -> Iterator[str]:
    """A module that takes connections, and never answers."""
    with temporary_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "s"))
        listener.listen(1024)
        yield f"cvm-local:{directory}/s"


def test_a_shadow_that_hangs_costs_only_a_counted_line(host: Host) -> None:
    with silent() as module, serving(host, CVM_SHADOW=module, CVM_LOOKUP_TIMEOUT=AN_HOUR, CVM_WORKERS="1") as server:
        asked = 0
        while "too many are waiting" not in server.log.read_text():
            assert server.ask("joe").code == 0
            asked += 1
        assert asked > 20, "some were let wait"
        assert server.ask("nobody").code == 100
        assert server.stop() == 0
        assert server.log.read_text().endswith("Stopping.\n")


def test_a_shadow_that_is_not_there_is_reported(host: Host) -> None:
    with temporary_directory() as directory, serving(host, CVM_SHADOW=f"cvm-local:{directory}/s") as server:
        for _ in range(10):
            assert server.ask("joe").code == 0
        line = server.logged("? shadow: ")
        assert line.endswith(f"cvm-local:{directory}/s: No such file or directory")
        assert server.log.read_text().count("? shadow: ") == 1


def test_a_shadow_that_answers_nonsense_is_reported(host: Host) -> None:
    with recording(b"\0" * 600) as (module, _), serving(host, CVM_SHADOW=module) as server:
        assert server.ask("joe").code == 0
        server.logged("? shadow: 1 answers were not compared")


def shadow_process(server: Server) -> int:
    """The child of the server that does not hold its listening socket."""
    return until(lambda: _shadow_process(server), "there is a shadow process")


def _shadow_process(server: Server) -> int:
    doors = {
        line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines() if line.endswith(str(server.path))
    }
    for pid in server.workers():
        held = set()
        with suppress(FileNotFoundError, ProcessLookupError):  # one that is told to stop ends meanwhile
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(FileNotFoundError):
                    held.add(os.readlink(fd).removeprefix("socket:[").removesuffix("]"))
            if held and os.getpgid(pid) == pid and not doors & held:
                return pid
    return 0


def test_a_shadow_process_that_dies_is_replaced_and_nobody_notices(host: Host) -> None:
    with another_host() as other, serving(other) as theirs, serving(host, CVM_SHADOW=theirs.module) as server:
        first = shadow_process(server)
        os.kill(first, signal.SIGKILL)
        assert server.ask("joe").code == 0
        server.logged(f"? shadow process {first} ended with signal 9; another one takes its place")
        assert server.ask("bob").code == 100
        server.logged("! bob@example.org")
        assert shadow_process(server) != first


def test_a_shadow_process_that_is_stopped_blocks_nobody(host: Host) -> None:
    with another_host() as other, serving(other) as theirs, serving(host, CVM_SHADOW=theirs.module) as server:
        stopped = shadow_process(server)
        os.kill(stopped, signal.SIGSTOP)
        while "too many are waiting" not in server.log.read_text():
            assert server.ask("joe").code == 0
        assert server.stop() == 0
        until(lambda: not alive(stopped), "it is gone")


def test_no_shadow_process_outlives_its_server(host: Host) -> None:
    with silent() as module, serving(host, CVM_SHADOW=module, CVM_LOOKUP_TIMEOUT=AN_HOUR) as server:
        process = shadow_process(server)
        server.ask("joe")
        server.process.kill()
        until(lambda: not alive(process), "it is gone")


def test_a_program_that_hangs_ends_with_the_server(host: Host) -> None:
    program, pid = host.root / "program", host.root / "pid"
    program.write_text(f"#!/bin/sh\necho $$ > {pid}.new\nmv {pid}.new {pid}\nexec sleep 3600\n")
    program.chmod(0o755)
    with serving(host, CVM_SHADOW=str(program), CVM_LOOKUP_TIMEOUT=AN_HOUR) as server:
        assert server.ask("joe").code == 0
        hanging = int(until(lambda: pid.exists() and pid.read_text(), "it is asked"))
        assert server.stop() == 0
    until(lambda: not alive(hanging), "it is gone")


def test_a_client_sees_the_end_of_the_server_not_of_the_shadow(host: Host) -> None:
    """The process must not hold the listening socket, or clients would wait there for ever."""
    with silent() as module, serving(host, CVM_SHADOW=module) as server:
        process = shadow_process(server)

        def links() -> Iterator[str]:
            for fd in Path(f"/proc/{process}/fd").iterdir():
                with suppress(FileNotFoundError):  # it begins by closing what it does not need
                    yield os.readlink(fd)

        until(lambda: sum(link.startswith("socket:") for link in links()) == 1, "only the channel")
        assert stat.S_ISSOCK(os.stat(server.path).st_mode)


def test_the_shadow_process_gives_way_to_the_workers(host: Host) -> None:
    with silent() as module, serving(host, CVM_SHADOW=module) as server:
        shadow = shadow_process(server)
        workers = [pid for pid in server.workers() if pid != shadow]
        of_workers = {os.getpriority(os.PRIO_PROCESS, pid) for pid in workers}
        assert os.getpriority(os.PRIO_PROCESS, shadow) == min(19, max(of_workers) + NICENESS)


def test_without_the_setting_there_is_no_such_process(host: Host) -> None:
    with serving(host, CVM_WORKERS="2") as server:
        until(lambda: len(server.workers()) == 2, "the workers, and nobody else")


# -- the recipe of docs/operating.md, with the C program --------------------------------------------


@pytest.mark.peer("cvm-testclient")
@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp"])
def test_the_c_program_as_shadow_differs_where_it_is_known_to_differ(host: Host, scheme: str) -> None:
    host.control("virtualdomains", "v.example:joe\nexcept.example:\n")
    host.directory("home/joe/.qmail-dir")
    with c_serving(host, scheme=scheme) as c, serving(host, CVM_SHADOW=c.module, scheme=scheme) as server:
        for account in ("joe", "joe-foo", "nobody", "joe-nope", "ann-x"):
            server.ask(account)
        server.ask("foo", "v.example")
        server.ask("joe", "elsewhere.example")
        assert server.ask("joe", "except.example").code == 100
        assert server.ask("joe-dir").code == 100
        assert sorted(differences(server, "joe", "joe-dir")) == [
            f"! joe-dir@example.org joe no-mailbox {host.root}/home/joe here 100 out of scope 0, there 0",
            "! joe@except.example - virtual-exception control/virtualdomains here 100 out of scope 1, there 0",
        ]
        assert c.process.poll() is None
        assert "shadow" not in server.log.read_text()


def manual(*starts: str) -> str:
    """The lines of the recipe in docs/migrate.md that begin so."""
    text = (Path(__file__).parents[2] / "docs/migrate.md").read_text()
    lines = text.partition("**1. Compare.**")[2].partition("**2.")[0].splitlines()
    return "\n".join(next(line for line in reversed(lines) if line.startswith(start)) for start in starts)


@pytest.mark.peer("cvm-testclient")
def test_a_careful_switch_from_the_c_program(host: Host) -> None:
    host.control("virtualdomains", "v.example:joe\nexcept.example:\n")
    with c_serving(host) as c:
        # 1. the C program answers; ours, beside it, reports the difference
        for account, domain in (("joe", "example.org"), ("joe", "except.example"), ("nobody", "example.org")):
            c.ask(account, domain)
        with serving(host, CVM_SHADOW=c.module) as trial:
            recipe = manual("sed -nE", "chpst -e", "grep '^!'")
            for here, there in (
                ("/etc/sv/cvm-rcptto/log/main/current", c.log),
                ("chpst -e /etc/sv/cvm-rcptto/env /opt/cvm-qmail/bin", CVM_QMAIL.parent),
                ("cvm-local:/run/cvm-trial", trial.module),
                ("/tmp/trial.log", trial.log),
                ("/tmp/asked", host.root / "asked"),
            ):
                assert here in recipe
                recipe = recipe.replace(here, str(there))

            def differing() -> list[str]:
                said = run(Path("/bin/sh"), "-c", recipe, host=host).stdout.decode()
                return [line for line in said.splitlines() if line[0] == "!"]

            said = until(differing, "the recipe finds a difference")
            assert {line.split()[1] for line in said} == {"joe@except.example"}
            asked = set((host.root / "asked").read_text().split())
            assert asked == {"joe@example.org", "joe@except.example", "nobody@example.org"}
        # 2. ours answers, and refuses nothing; what is compared is what it would say
        with serving(host, CVM_SHADOW=c.module, CVM_DRY_RUN="1") as server:
            server.warned("CVM_DRY_RUN is set: nothing is rejected")
            assert [server.ask(name).code for name in ("joe", "nobody", "joe-nope")] == [0, 0, 0]
            assert server.ask("joe", "except.example").code == 100
            server.logged("+ nobody@example.org alias no-mailbox")
            assert differences(server, "joe") == [
                "! joe@except.example - virtual-exception control/virtualdomains here 100 out of scope 1, there 0"
            ]
        # 3. ours refuses
        with serving(host, CVM_SHADOW=c.module) as server:
            assert [server.ask(name).code for name in ("joe", "nobody")] == [0, 100]
            server.ask("joe", "except.example")
            assert len(differences(server, "joe")) == 1
        assert c.process.poll() is None


@pytest.mark.peer("cvm-testclient")
def test_the_c_program_without_a_service_of_its_own(host: Host) -> None:
    host.control("virtualdomains", "except.example:\n")
    with serving(host, CVM_SHADOW=str(C_PROGRAM), CVM_LOOKUP_TIMEOUT=AN_HOUR, **wrapped(host)) as server:
        assert server.ask("joe").code == 0
        assert server.ask("joe", "except.example").code == 100
        assert differences(server, "joe") == [
            "! joe@except.example - virtual-exception control/virtualdomains here 100 out of scope 1, there 0"
        ]
