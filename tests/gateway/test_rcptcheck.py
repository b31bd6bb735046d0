"""cvm-rcptcheck in Python and in C: one table of addresses and outcomes through every recorded mail server."""

from __future__ import annotations

import ast
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from gateways import gateway
from hosts import Host, temporary_directory
from mail_servers import MAIL_SERVERS, Done, MailServer
from serving import serving, until

from cvm_qmail.answer import Recipient
from cvm_qmail.gateway import rcptcheck
from cvm_qmail.protocols.cvm import packets
from cvm_qmail.protocols.cvm.packets import Code, Credential, Fact
from cvm_qmail.protocols.policy import Policy
from cvm_qmail.protocols.question import Question
from cvm_qmail.protocols.result import REPLIES, Result, word
from cvm_qmail.reasons import REASONS, Outcome, Rejection

INSTALLED = Path(sys.executable).with_name("cvm-rcptcheck")
SOURCE = Path(__file__).parents[2] / "contrib/rcptcheck/rcptcheck.c"
SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
FACTS = ((Fact.USERNAME, b"joe"), (Fact.USERID, b"500"), (Fact.GROUPID, b"500"), (Fact.DIRECTORY, b"/home/joe"))
ADDRESS = b"joe@ours.test"
SOON = "100"
"""Milliseconds, as CVM_GATEWAY_TIMEOUT, where it is to run out."""

pytestmark = pytest.mark.peer("gcc")


def has_sanitizers() -> bool:
    """Whether gcc can link what finds bad reads."""
    with temporary_directory() as directory:
        command = ["gcc", "-x", "c", "-o", directory / "a.out", *SANITIZERS, "-"]
        return subprocess.run(command, input=b"int main(void) { return 0; }", check=False).returncode == 0


@pytest.fixture(scope="module")
def programs() -> Iterator[dict[str, Path]]:
    """The programs: Python's as it is installed, and C's, warnings being errors."""
    with temporary_directory() as directory:
        found = {"python": INSTALLED}
        for name, flags in {"c": ("-O2",), "sanitized": SANITIZERS}.items():
            if name == "sanitized" and not has_sanitizers():
                continue
            found[name] = directory / name
            command = ["gcc", *flags, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-o", found[name], SOURCE]
            subprocess.run(command, check=True)
        yield found


@pytest.fixture(params=["python", "c", "sanitized"])
def program(request: pytest.FixtureRequest, programs: dict[str, Path]) -> Path:
    """One of the programs."""
    return built(request.param, programs)


def built(name: str, programs: dict[str, Path]) -> Path:
    """The program of this name."""
    if name not in programs:
        pytest.skip("PEER MISSING: the sanitizers of gcc")
    return programs[name]


each_server = pytest.mark.parametrize("server", MAIL_SERVERS, ids=lambda server: server.name)
KINDS = [server for server in MAIL_SERVERS if not server.name.endswith("agerstla")]
each_kind = pytest.mark.parametrize("server", KINDS, ids=lambda server: server.name)
"""agerstla's makes of everything what sagredo's makes of it."""


class Module:
    """A stub of a CVM module or of a policy service: it gives one answer, and keeps what it was asked."""

    def __init__(self, directory: Path, answer: Callable[[bytes], bytes | None], end: bytes) -> None:
        """`end`: what a request ends with; empty: the end of the file.  None as the answer: it hangs."""
        self.path = directory / "module"
        self.asked: list[bytes] = []
        self._answer = answer
        self._end = end
        self._held: list[socket.socket] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self.path))
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            request = b""
            while (data := connection.recv(65536)) and not (self._end and (request + data).endswith(self._end)):
                request += data
            request += data
            if request == b"stop":
                connection.close()
                return
            self.asked.append(request)
            answer = self._answer(request)
            if answer is None:
                self._held.append(connection)
                continue
            with contextlib.suppress(OSError):
                connection.sendall(answer)
            connection.close()

    def stop(self) -> None:
        """Ends it."""
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(self.path))
            last.sendall(b"stop")
            last.shutdown(socket.SHUT_WR)
            last.recv(1)
        self._thread.join()
        for connection in (*self._held, self._listening):
            connection.close()


@contextlib.contextmanager
def answering(answer: bytes | Callable[[bytes], bytes | None] | None, end: bytes = b"") -> Iterator[Module]:
    """A stub that gives this answer."""
    with temporary_directory() as directory:
        module = Module(directory, answer if callable(answer) else lambda _request: answer, end)
        try:
            yield module
        finally:
            module.stop()


def response(code: int, *facts: tuple[int, bytes]) -> bytes:
    """A module's packet."""
    return packets.pack_response(2, b"", code, facts)


def why(reason: str) -> tuple[int, bytes]:
    """The fact of a reason."""
    return Fact.REASON, reason.encode()


class Case(NamedTuple):
    """An answer, and what it has to become."""

    answer: bytes | None
    reply: str


ACCEPTED, MISSING, FULL = "250", "550 5.1.1 no such mailbox", "552 5.2.2 mailbox full"
DISABLED, BLOCKED = "550 5.2.1 mailbox disabled", "550 5.7.1 mailbox does not take this mail"
LATER, FULL_NOW = "451 4.3.0 cannot tell now", "452 4.2.2 mailbox full"

YES = response(Code.SUCCESS, *FACTS)
NO = response(Code.PERMFAIL, (Fact.OUTOFSCOPE, b"0"))

ANSWERS = {
    "accepted": Case(YES, ACCEPTED),
    "accepted, more facts": Case(response(Code.SUCCESS, *FACTS, (Fact.MAILBOX, b""), why("mailbox")), ACCEPTED),
    "out of scope": Case(response(Code.PERMFAIL, (Fact.OUTOFSCOPE, b"1")), ACCEPTED),
    "out of scope, another number": Case(response(Code.PERMFAIL, (Fact.OUTOFSCOPE, b"2")), ACCEPTED),
    "rejected": Case(NO, MISSING),
    "rejected, no scope": Case(response(Code.PERMFAIL), MISSING),
    "rejected, reason unknown": Case(response(Code.PERMFAIL, why("whatever")), MISSING),
    "full": Case(response(Code.PERMFAIL, (Fact.OUTOFSCOPE, b"0"), why("over-quota")), FULL),
    "disabled": Case(response(Code.PERMFAIL, (Fact.OUTOFSCOPE, b"0"), why("locked")), DISABLED),
    "blocked": Case(response(Code.PERMFAIL, (Fact.OUTOFSCOPE, b"0"), why("program-bounces")), BLOCKED),
    "scope of letters": Case(response(Code.PERMFAIL, (Fact.OUTOFSCOPE, b"x")), LATER),
    "scope of zeros": Case(response(Code.PERMFAIL, (Fact.OUTOFSCOPE, b"00")), LATER),
    "scope empty": Case(response(Code.PERMFAIL, (Fact.OUTOFSCOPE, b"")), LATER),
    "success without facts": Case(response(Code.SUCCESS), LATER),
    "success without a home": Case(response(Code.SUCCESS, *FACTS[:3]), LATER),
    "full for now": Case(response(Code.IO, why("over-quota")), FULL_NOW),
    "success without facts, full": Case(response(Code.SUCCESS, why("over-quota")), LATER),
    **{f"code {code}": Case(response(code), LATER) for code in (1, 2, 3, 4, 5, 6, 7, 8, 99, 101, 111, 255)},
    "nothing": Case(b"", LATER),
    "one byte of yes": Case(YES[:1], LATER),
    "one byte of no": Case(NO[:1], LATER),
    "two bytes": Case(NO[:2], LATER),
    "cut in a fact": Case(YES[:-3], LATER),
    "no end": Case(YES[:-1], LATER),
    "no end of no": Case(NO[:-1], LATER),
    "bytes after the end": Case(YES + b"\0", LATER),
    "bytes after the end of no": Case(NO + b"x", LATER),
    "a nonce of somebody else": Case(packets.pack_response(2, b"12345678", Code.PERMFAIL, ()), LATER),
    "a nonce that is too long": Case(b"\x64\xff\0", LATER),
    "a fact that runs past the end": Case(b"\x64\0\x10\xff0\0", LATER),
    "a fact without a length": Case(b"\x64\0\x10", LATER),
    "version 1": Case(b"\x64\x100\0\0", LATER),
    "text": Case(b"HTTP/1.1 200 OK\r\n\r\n", LATER),
    "600 bytes": Case(YES[:-1] + b"\xf1\xfe" + bytes(254) + b"\xf2\xfe" + bytes(254) + b"\0", LATER),
}


WITH_TEXT = ("spp.agerstla", "spp.sagredo", "rcptcheck.agerstla", "rcptcheck.sagredo")
"""Servers that take the text of a reply from us."""

STATUSES = {"rcptcheck.notqmail-233": {"5": 100, "4": 111}, "recipients-pam.sqmail": {"5": 1, "4": 111}}
"""What the others take for a refusal and for a temporary failure."""


def expected(server: MailServer, reply: str) -> str:
    """What the SMTP client is to see: the reply itself where the server takes it from us, else one of its kind."""
    if reply == ACCEPTED:
        return "250 ok\r\n"
    return f"{reply}\r\n" if server.name in WITH_TEXT else server.reply(Done(STATUSES[server.name][reply[0]]))


def temporary(server: MailServer, done: Done) -> bool:
    """Whether the SMTP client is to come back, and only that."""
    replies = server.reply(done).splitlines()
    return len(replies) == 1 and replies[0][0] == "4"


@each_server
def test_the_judge_agrees_with_all_that_was_recorded(server: MailServer) -> None:
    judged = 0
    for exchange in server.exchanges:
        did = exchange.get("program does")
        if not isinstance(did, dict) or len(exchange.get("fd3 of each call", [1])) > 1:
            continue
        status = -did["kill"] if "kill" in did else did.get("exit", 0)
        output = did.get("stdout", "").encode("latin-1") if "fd4" not in did else b""
        done = Done(status, output, did.get("fd4", "").encode("latin-1"))
        seen = f"{exchange['smtp']}{exchange['then'] or ''}".replace("<EOF>", "")
        assert server.reply(done).replace("<EOF>", "") == seen, exchange["case"]
        judged += 1
    assert judged > 10


@each_server
def test_every_recorded_address_is_asked_for_as_it_is(server: MailServer, program: Path) -> None:
    with answering(YES) as module:
        for address in server.recipients():
            done = server.call(program, address, CVM_LOOKUP=f"cvm-local:{module.path}", CVM_LOOKUP_SECRET="hush")
            account, at, domain = address.rpartition(b"@")
            if len(account) > packets.VALUE_LIMIT:
                assert temporary(server, done)
                assert not module.asked
                continue
            assert server.reply(done) == "250 ok\r\n", done
            asked = packets.parse_request(module.asked.pop()).credentials
            assert asked[Credential.ACCOUNT] == (account if at else address)
            assert asked.get(Credential.DOMAIN) == (domain if at else None)
            assert asked[Credential.SECRET] == b"hush"
            assert asked[Credential.REASON] == b""
        assert len(server.recipients()) > 15


@each_server
def test_each_answer_becomes_the_reply_of_the_server(server: MailServer, program: Path) -> None:
    answers = iter(ANSWERS.values())
    with answering(lambda _request: next(answers).answer) as module:
        for name, case in ANSWERS.items():
            done = server.call(program, ADDRESS, CVM_LOOKUP=f"cvm-local:{module.path}")
            assert server.reply(done) == expected(server, case.reply), (name, done)
            assert server.by == "SMTPRCPTTO" or done.output == b"", name


QUESTION = Question(Recipient(b"joe", b"ours.test"))
POLICY_ANSWERS = {
    **{
        f"{word(outcome)} {rejection}": Case(
            Policy().reply(QUESTION, Result(outcome, "why", rejection)), ACCEPTED if reply.code == 250 else str(reply)
        )
        for (outcome, rejection), reply in REPLIES.items()
    },
    "of another service, yes": Case(b"action=DUNNO\n\n", ACCEPTED),
    "of another service, yes with a text": Case(b"action=dunno because\n\n", ACCEPTED),
    "of another service, no": Case(b"action=554 5.7.1 go away\n\n", BLOCKED),
    "of another service, no status": Case(b"action=550 no such user\n\n", MISSING),
    "of another service, later": Case(b"action=451 4.3.0 later\n\n", LATER),
    "the first line counts": Case(b"action=dunno\naction=550 5.1.1 no\n\n", ACCEPTED),
    "ok": Case(b"action=ok\n\n", LATER),
    "reject": Case(b"action=reject\n\n", LATER),
    "four digits": Case(b"action=5500 no\n\n", LATER),
    "no action": Case(b"reason=x\n\n", LATER),
    "an empty action": Case(b"action=\n\n", LATER),
    "an empty block": Case(b"\n\n", LATER),
    "an action in the middle of a line": Case(b"xaction=dunno\n\n", LATER),
    "yes that is no": Case(b"action=dunno\noutcome=rejected\n\n", LATER),
    "yes that is later": Case(b"action=dunno\noutcome=temporary_failure\n\n", LATER),
    "yes that is what?": Case(b"action=dunno\noutcome=maybe\n\n", LATER),
    "no that is yes": Case(b"action=550 5.1.1 no\noutcome=accepted\n\n", LATER),
    "no that is later": Case(b"action=550 5.1.1 no\noutcome=temporary_failure\n\n", LATER),
    "later that is no": Case(b"action=defer_if_permit 4.2.2 x\noutcome=rejected\n\n", LATER),
    "CR LF": Case(b"action=dunno\r\n\r\n", LATER),
    "a zero byte": Case(b"action=dunno\nx=\0\n\n", LATER),
    "cut": Case(b"action=dunno\n", LATER),
    "cut no": Case(b"action=550 5.1.1 no", LATER),
    "nothing": Case(b"", LATER),
    "no end": Case(b"x" * 70000, LATER),
}
POLICY_END = b"\n\n"


@each_kind
def test_each_answer_of_the_gateway_becomes_the_reply_of_the_server(server: MailServer, program: Path) -> None:
    answers = iter(POLICY_ANSWERS.values())
    with answering(lambda _request: next(answers).answer, POLICY_END) as module:
        for name, case in POLICY_ANSWERS.items():
            done = server.call(program, ADDRESS, CVM_GATEWAY=f"unix:{module.path}")
            assert server.reply(done) == expected(server, case.reply), (name, done)
            assert server.by == "SMTPRCPTTO" or done.output == b"", name


@each_server
def test_the_gateway_learns_who_asks(server: MailServer, program: Path) -> None:
    with answering(b"action=dunno\n\n", POLICY_END) as module:
        for address in server.recipients():
            done = server.call(program, address, CVM_GATEWAY=f"unix:{module.path}", CVM_LOOKUP="cvm-local:/nowhere")
            assert server.reply(done) == "250 ok\r\n", done
            given = dict(line.split(b"=", 1) for line in module.asked.pop().removesuffix(POLICY_END).split(b"\n"))
            assert given == {
                b"request": b"smtpd_access_policy",
                b"protocol_state": b"RCPT",
                b"recipient": address,
                b"sender": b"sender@client.test",
                b"client_address": b"192.0.2.7",
                **({} if server.name == "rcptcheck.notqmail-233" else {b"helo_name": b"client.test"}),
            }


@each_kind
def test_a_server_that_is_not_there_is_a_temporary_failure(server: MailServer, program: Path) -> None:
    with temporary_directory() as directory:
        (directory / "file").touch()
        with socket.socket(socket.AF_UNIX) as stopped:
            stopped.bind(str(directory / "stopped"))
        for place in ("nowhere", "file", "stopped", "x" * 200, ""):
            for setting in (
                {"CVM_LOOKUP": f"cvm-local:{directory / place}"},
                {"CVM_GATEWAY": f"unix:{directory / place}"},
            ):
                done = server.call(program, ADDRESS, **setting)
                assert temporary(server, done), (setting, done)
                assert done.log.startswith(b"cvm-rcptcheck: ")
                assert done.log.count(b"\n") == 1


def slow(_request: bytes) -> None:
    """Never answers."""


@each_kind
def test_a_server_that_hangs_is_a_temporary_failure_in_time(server: MailServer, program: Path) -> None:
    with answering(slow) as module, answering(slow, POLICY_END) as gateway:
        for setting in ({"CVM_LOOKUP": f"cvm-local:{module.path}"}, {"CVM_GATEWAY": f"unix:{gateway.path}"}):
            done = server.call(program, ADDRESS, CVM_GATEWAY_TIMEOUT=SOON, **setting)
            assert temporary(server, done)
            assert b"in time" in done.log or b"timed out" in done.log


@each_kind
def test_a_full_queue_is_waited_for_and_then_a_temporary_failure(server: MailServer, program: Path) -> None:
    with (
        temporary_directory() as directory,
        socket.socket(socket.AF_UNIX) as listening,
        contextlib.ExitStack() as waiting,
    ):
        path = str(directory / "socket")
        listening.bind(path)
        listening.listen(0)
        for _ in range(3):
            before = waiting.enter_context(socket.socket(socket.AF_UNIX))
            before.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                before.connect(path)
        done = server.call(program, ADDRESS, CVM_GATEWAY_TIMEOUT=SOON, CVM_LOOKUP=f"cvm-local:{path}")
    assert temporary(server, done)


def test_a_recipient_without_an_end_is_a_temporary_failure(program: Path) -> None:
    server = MAIL_SERVERS[5]
    with answering(YES) as module:
        for given in (b"", b"joe@ours.test", b"x" * 60000):
            done = server.call(program, b"", fd3=given, CVM_LOOKUP=f"cvm-local:{module.path}")
            assert temporary(server, done)
        assert module.asked == []


BAD_SETTINGS: dict[str, dict[str, str]] = {
    "nothing is set": {},
    "empty": {"CVM_LOOKUP": "", "CVM_GATEWAY": ""},
    "no scheme": {"CVM_LOOKUP": "/run/socket"},
    "a program": {"CVM_LOOKUP": "cvm-command:/bin/true"},
    "an unknown scheme": {"CVM_LOOKUP": "tcp:127.0.0.1:1"},
    "no port": {"CVM_LOOKUP": "cvm-udp:127.0.0.1"},
    "not a port": {"CVM_LOOKUP": "cvm-udp:127.0.0.1:no-such-service"},
    "not a host": {"CVM_LOOKUP": "cvm-udp:no such host:1"},
    "a host that is too long": {"CVM_LOOKUP": f"cvm-udp:{'x' * 300}:1"},
    "a gateway that is no path": {"CVM_GATEWAY": "127.0.0.1:10"},
    "a secret that is too long": {"CVM_LOOKUP": "cvm-local:{path}", "CVM_LOOKUP_SECRET": "x" * 300},
    **{
        f"time {time!r}": {"CVM_LOOKUP": "cvm-local:{path}", "CVM_GATEWAY_TIMEOUT": time}
        for time in ("0", "x", "-1", "1.5", "99999999", " 1")
    },
}


@each_kind
def test_a_wrong_setting_is_a_temporary_failure(server: MailServer, program: Path) -> None:
    with answering(NO) as module:
        for name, given in BAD_SETTINGS.items():
            settings = {key: value.format(path=module.path) for key, value in given.items()}
            done = server.call(program, ADDRESS, **settings)
            assert temporary(server, done), (name, done)
            assert done.log.startswith(b"cvm-rcptcheck: "), name
            assert b"xxx" not in done.log or "secret" not in name
        assert module.asked == []


def test_what_is_missing_is_named_in_the_log(program: Path) -> None:
    settings = {"RECIPIENT": "joe@ours.test", "CVM_LOOKUP": "cvm-local:/nonexistent/socket"}
    done = subprocess.run([program], env=settings, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (111, "")
    assert done.stderr == "cvm-rcptcheck: /nonexistent/socket: No such file or directory\n"


@each_kind
def test_an_address_is_never_a_command_and_never_too_long(server: MailServer, program: Path) -> None:
    with temporary_directory() as directory, answering(NO) as module:
        trap = directory / "trap"
        for address in (b"$(touch %b)@ours.test", b"`touch %b`", b"';touch %b;'@x", b"() { :;}; touch %b", b"-n", b"*"):
            hostile = address.replace(b"%b", os.fsencode(trap))
            done = server.call(program, hostile, SENDER=hostile, CVM_LOOKUP=f"cvm-local:{module.path}")
            assert server.reply(done) == expected(server, MISSING), done
        if server.by != "fd3":
            done = server.call(program, b"x" * 100_000 + b"@ours.test", CVM_LOOKUP=f"cvm-local:{module.path}")
            assert temporary(server, done)
        assert not trap.exists()


def test_a_newline_in_an_address_is_not_passed_on_to_the_gateway(program: Path) -> None:
    server = MAIL_SERVERS[1]
    with answering(b"action=dunno\n\n", POLICY_END) as module:
        for address, sender in ((b"x\n\nrequest=y@ours.test", b""), (b"joe@ours.test", b"x\n\nrecipient=y")):
            done = server.call(program, address, SENDER=sender, CVM_GATEWAY=f"unix:{module.path}")
            assert temporary(server, done) is (b"\n" in address)
        assert len(module.asked) == 1
        assert b"sender" not in module.asked[0]


# -- the interpreter and the kernel ---------------------------------------------------------------------------------


@each_kind
def test_no_closed_descriptor_makes_a_wrong_answer(server: MailServer, program: Path) -> None:
    for answer, reply in ((YES, ACCEPTED), (NO, MISSING)):
        with answering(answer) as module:
            for closed in ((0,), (1,), (2,), (0, 1, 2), (4,), (0, 1, 2, 3, 4)):
                done = server.call(program, ADDRESS, closed=closed, CVM_LOOKUP=f"cvm-local:{module.path}")
                got = server.reply(done)
                right = got[0] == reply[0] or temporary(server, done)
                assert right, (closed, done)
                if closed in ((0,), (2,)):
                    assert got == expected(server, reply)


@each_kind
def test_text_for_a_descriptor_that_nobody_reads_is_not_relied_on(server: MailServer, program: Path) -> None:
    with answering(response(Code.IO)) as module:
        done = server.call(program, ADDRESS, closed=(4,), USE_FD4="1", CVM_LOOKUP=f"cvm-local:{module.path}")
    assert temporary(server, done)


@each_kind
def test_too_few_descriptors_make_no_wrong_answer(server: MailServer, programs: dict[str, Path]) -> None:
    for answer, reply in ((YES, ACCEPTED), (NO, MISSING)):
        with answering(answer) as module:
            # the shell needs descriptor 10, and the loader of the C program one that is free
            for name, limit in (*(("python", limit) for limit in (12, 13, 14)), *(("c", limit) for limit in (5, 6, 7))):
                shell = ("/bin/sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh")
                done = server.call(programs[name], ADDRESS, wrapper=shell, CVM_LOOKUP=f"cvm-local:{module.path}")
                assert server.reply(done)[0] == reply[0] or temporary(server, done), (name, limit, done)


@each_kind
def test_too_little_memory_makes_no_wrong_answer(server: MailServer, programs: dict[str, Path]) -> None:
    seen = set()
    with answering(NO) as module:
        for kilobytes in (*range(4000, 12000, 1000), *range(12000, 40000, 4000), 400000):
            shell = ("/bin/sh", "-c", f'ulimit -v {kilobytes}; exec "$@"', "sh")
            for name in ("python", "c"):
                done = server.call(programs[name], ADDRESS, wrapper=shell, CVM_LOOKUP=f"cvm-local:{module.path}")
                refused = server.reply(done) == expected(server, MISSING)
                seen.add((name, refused))
                assert refused or temporary(server, done), (name, kilobytes, done)
    assert seen >= {("python", True), ("python", False), ("c", True)}


INTERPRETERS = {
    **{f"exits {status}": f"exit {status}" for status in (0, 1, 2, 98, 104, 110, 113, 120, 126, 127, 255)},
    **{f"dies of {name}": f"kill -{name} $$" for name in ("SEGV", "ABRT", "KILL", "TERM", "BUS")},
    "is no program": None,
}


@each_kind
def test_an_interpreter_that_fails_is_a_temporary_failure(server: MailServer) -> None:
    with temporary_directory() as directory:
        program = Path(shutil.copy(INSTALLED, directory))
        for name, script in INTERPRETERS.items():
            python = directory / "python3"
            python.write_bytes(b"\x7fELF junk" if script is None else f"#!/bin/sh\n{script}\n".encode())
            python.chmod(0o755)
            done = server.call(program, ADDRESS)
            assert temporary(server, done), (name, done)


@each_kind
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGALRM, signal.SIGXCPU])
def test_a_signal_is_a_temporary_failure(server: MailServer, number: signal.Signals, program: Path) -> None:
    with answering(slow) as module:

        def interrupt(pid: int) -> None:
            until(lambda: module.asked, "the question is asked")
            os.kill(pid, number)

        setting = f"cvm-local:{module.path}"
        done = server.call(program, ADDRESS, during=interrupt, CVM_LOOKUP=setting, CVM_GATEWAY_TIMEOUT=SOON)
    assert temporary(server, done), done


@each_kind
def test_an_interpreter_that_is_killed_is_a_temporary_failure(server: MailServer) -> None:
    with answering(slow) as module:

        def kill(pid: int) -> None:
            until(lambda: module.asked, "the question is asked")
            [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            os.kill(int(child), signal.SIGKILL)

        done = server.call(INSTALLED, ADDRESS, during=kill, CVM_LOOKUP=f"cvm-local:{module.path}")
    assert temporary(server, done), done


# -- by UDP ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def answering_by_udp(answer: Callable[[bytes], list[bytes]]) -> Iterator[str]:
    """A stub that sends these datagrams for each one that comes; its name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                packet, who = listening.recvfrom(1024)
                if packet == b"stop":
                    return
                for datagram in answer(packet):
                    listening.sendto(datagram, who)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"cvm-udp:127.0.0.1:{listening.getsockname()[1]}"
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"stop", listening.getsockname())
            thread.join()


def own(packet: bytes, code: int = Code.PERMFAIL) -> bytes:
    """The answer with the nonce of its question."""
    return packets.pack_response(2, packet[2 : 2 + packet[1]], code, ())


def test_by_udp_only_the_answer_to_its_own_question_counts(program: Path) -> None:
    server = MAIL_SERVERS[1]
    other = packets.pack_response(2, b"somebody", Code.SUCCESS, FACTS)
    with answering_by_udp(lambda packet: [other, b"", b"\0", own(packet)]) as module:
        done = server.call(program, ADDRESS, CVM_LOOKUP=module)
        assert server.reply(done) == f"{MISSING}\r\n"
    with answering_by_udp(lambda _packet: [other]) as module:
        done = server.call(program, ADDRESS, CVM_LOOKUP=module, CVM_GATEWAY_TIMEOUT=SOON)
        assert temporary(server, done)


def test_by_udp_the_question_is_sent_again(program: Path) -> None:
    server, heard = MAIL_SERVERS[1], []

    def second(packet: bytes) -> list[bytes]:
        heard.append(packet)
        return [own(packet)] if heard.count(packet) > 1 else []

    with answering_by_udp(second) as module:
        done = server.call(program, ADDRESS, CVM_LOOKUP=module)
    assert server.reply(done) == f"{MISSING}\r\n"


def test_by_udp_a_port_that_nobody_listens_at_is_a_temporary_failure(program: Path) -> None:
    with answering_by_udp(lambda _packet: []) as module:
        pass
    done = MAIL_SERVERS[1].call(program, ADDRESS, CVM_LOOKUP=module)
    assert temporary(MAIL_SERVERS[1], done)


def test_each_question_by_udp_has_a_nonce_of_its_own(program: Path) -> None:
    heard: list[bytes] = []
    with answering_by_udp(lambda packet: heard.append(packet) or [own(packet)]) as module:
        for _ in range(5):
            MAIL_SERVERS[1].call(program, ADDRESS, CVM_LOOKUP=module)
    assert len({packets.parse_request(packet).nonce for packet in heard}) == 5


# -- who called, and what else it learns ----------------------------------------------------------------------------


def test_who_is_called_by_rcptcheck_beside_spp_answers_rcptcheck(program: Path) -> None:
    server = MAIL_SERVERS[2]
    with answering(NO) as module:
        beside = {"SMTPRCPTTO": "ann@ours.test", "SMTPMAILFROM": "s@client.test", "ENABLE_SPP": "1"}
        done = server.call(program, ADDRESS, CVM_LOOKUP=f"cvm-local:{module.path}", **beside)
        assert server.reply(done) == f"{MISSING}\r\n"
        assert packets.parse_request(module.asked[0]).credentials[Credential.ACCOUNT] == b"joe"


def test_under_spp_other_hosts_and_relay_clients_are_not_judged(program: Path) -> None:
    server = MAIL_SERVERS[4]
    with answering(NO) as module:
        setting = {"CVM_LOOKUP": f"cvm-local:{module.path}"}
        assert server.reply(server.call(program, ADDRESS, SMTPRCPTHOSTSOK="0", **setting)) == "250 ok\r\n"
        assert server.reply(server.call(program, ADDRESS, RELAYCLIENT="", **setting)) == "250 ok\r\n"
        assert module.asked == []
        setting["CVM_RCPTCHECK_RELAYCLIENT"] = "1"
        assert server.reply(server.call(program, ADDRESS, RELAYCLIENT="", **setting)) == f"{MISSING}\r\n"
        assert server.reply(server.call(program, ADDRESS, SMTPRCPTHOSTSOK="0", **setting)) == "250 ok\r\n"


def test_under_spp_the_message_can_be_refused_at_data(program: Path) -> None:
    server = MAIL_SERVERS[3]
    for answer, output in ((NO, b"LD554 5.1.1 "), (YES, b""), (response(Code.IO), b"E451 4.3.0 ")):
        with answering(answer) as module:
            done = server.call(program, ADDRESS, CVM_LOOKUP=f"cvm-local:{module.path}", CVM_GATEWAY_DENY_ALL="1")
        assert done.output.startswith(output)
        assert bool(done.output) is bool(output)


NEXT = {
    **{f"exits {n}": (f"exit {n}", n) for n in (0, 1, 2, 99, 100, 101, 111, 112, 113, 120)},
    "says on descriptor 4": ("printf '450 4.7.1 too many' >&4; exit 113", 113),
}


@pytest.mark.parametrize("name", NEXT)
def test_the_next_program_has_its_say_about_who_is_accepted(name: str, program: Path) -> None:
    script, status = NEXT[name]
    server = MAIL_SERVERS[2]
    with temporary_directory() as directory:
        following = directory / "next"
        following.write_text(f'#!/bin/sh\necho "$RECIPIENT" >{directory}/seen\n{script}\n')
        following.chmod(0o755)
        with answering(YES) as module:
            setting = {"CVM_LOOKUP": f"cvm-local:{module.path}", "CVM_RCPTCHECK_NEXT": str(following)}
            done = server.call(program, ADDRESS, **setting)
        assert done.status == status
        assert done.text == (b"450 4.7.1 too many" if "says" in name else b"")
        assert (directory / "seen").read_bytes() == ADDRESS + b"\n"


def test_the_next_program_is_not_run_for_who_is_not_accepted(program: Path) -> None:
    for answer in (NO, response(Code.IO), b""):
        with temporary_directory() as directory, answering(answer) as module:
            following = directory / "next"
            following.write_text(f"#!/bin/sh\ntouch {directory}/seen\n")
            following.chmod(0o755)
            setting = {"CVM_LOOKUP": f"cvm-local:{module.path}", "CVM_RCPTCHECK_NEXT": str(following)}
            assert MAIL_SERVERS[2].call(program, ADDRESS, **setting).status == 100
            assert not (directory / "seen").exists()


@pytest.mark.parametrize("content", [None, b"#!/nonexistent\n", b"\x7fELF junk", b"#!/bin/sh\nkill -KILL $$\n"])
@pytest.mark.parametrize("server", MAIL_SERVERS[:3], ids=lambda server: server.name)
def test_a_next_program_that_cannot_run_is_a_temporary_failure(
    server: MailServer, content: bytes | None, program: Path
) -> None:
    with temporary_directory() as directory, answering(YES) as module:
        following = directory / "next"
        if content is not None:
            following.write_bytes(content)
            following.chmod(0o755)
        setting = {"CVM_LOOKUP": f"cvm-local:{module.path}", "CVM_RCPTCHECK_NEXT": str(following)}
        assert temporary(server, server.call(program, ADDRESS, **setting))


def test_a_module_that_is_not_there_is_named_with_the_error(program: Path) -> None:
    done = MAIL_SERVERS[0].call(program, ADDRESS, CVM_LOOKUP="cvm-local:/nonexistent/socket")
    assert done.log == b"cvm-rcptcheck: /nonexistent/socket: No such file or directory\n"


# -- beside the daemon, and what the files hold -----------------------------------------------------------------------


def test_the_daemon_and_its_secret(program: Path, host: Host) -> None:
    right = {"CVM_LOOKUP_SECRET": "hush"}
    with serving(host, CVM_LOOKUP_SECRET="hush") as daemon:
        right["CVM_LOOKUP"] = daemon.module
        for server in MAIL_SERVERS:
            assert server.reply(server.call(program, b"joe@example.org", **right)) == "250 ok\r\n"
            assert server.reply(server.call(program, b"x@elsewhere.test", **right)) == "250 ok\r\n"
            assert server.reply(server.call(program, b"nobody@example.org", **right)) == expected(server, MISSING)
            assert server.reply(server.call(program, b"", **right)) == "250 ok\r\n"
            done = server.call(program, b"joe@example.org", CVM_LOOKUP=daemon.module, CVM_LOOKUP_SECRET="guess")
            assert temporary(server, done)
            assert b"guess" not in done.log
    for server in MAIL_SERVERS:
        assert temporary(server, server.call(program, b"joe@example.org", **right))


def damaged(answers: list[bytes], number: int) -> Iterator[bytes]:
    """Answers with bytes changed, cut off, added."""
    chance = random.Random(1)
    for _ in range(number):
        data = bytearray(chance.choice(answers))
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(data) + 1)
            data[at : at + chance.randrange(3)] = chance.choice((b"", b"\0", b"\n", b"0", b"\xff", b"5", b"=", b" "))
        yield bytes(data)


REPLY_OF = {
    rcptcheck.ACCEPTED: ACCEPTED,
    rcptcheck.MISSING: MISSING,
    rcptcheck.FULL: FULL,
    rcptcheck.DISABLED: DISABLED,
    rcptcheck.BLOCKED: BLOCKED,
    rcptcheck.TEMPORARY: LATER,
    rcptcheck.TEMPORARY_FULL: FULL_NOW,
}


def judged(judge: Callable[..., int], *answer: bytes) -> str:
    """What Python makes of an answer."""
    try:
        return REPLY_OF[judge(*answer)]
    except rcptcheck.CannotTell:
        return LATER


@pytest.mark.parametrize("name", ["c", "sanitized"])
def test_c_judges_damaged_answers_as_python_does(name: str, programs: dict[str, Path]) -> None:
    server, program = MAIL_SERVERS[1], built(name, programs)
    answers = list(damaged([case.answer for case in ANSWERS.values() if case.answer], 300))
    given = iter(answers)
    with answering(lambda _request: next(given)) as module:
        for answer in answers:
            done = server.call(program, ADDRESS, CVM_LOOKUP=f"cvm-local:{module.path}")
            assert server.reply(done) == expected(server, judged(rcptcheck._judge, answer, b"")), answer
    answers = [b"".join(part) for part in damaged_blocks()]
    given = iter(answers)
    with answering(lambda _request: next(given), POLICY_END) as module:
        for answer in answers:
            done = server.call(program, ADDRESS, CVM_GATEWAY=f"unix:{module.path}")
            block = answer.removesuffix(POLICY_END)
            assert server.reply(done) == expected(server, judged(rcptcheck._policy_outcome, block)), answer


def damaged_blocks() -> Iterator[tuple[bytes, bytes]]:
    """Policy answers that end as they should, with damage before."""
    whole = [case.answer.removesuffix(POLICY_END) for case in POLICY_ANSWERS.values() if case.answer]
    for block in damaged([block for block in whole if len(block) < 1000], 300):
        if POLICY_END not in block and not block.endswith(b"\n"):
            yield block, POLICY_END


COMMANDS = {  # a page, what its command prints for an address that does not exist, and for one that does
    "rcptcheck.md": ("100\n", "0\n"),
    "qmail-spp.md": ("E550 5.1.1 no such mailbox\n", ""),
    "sqmail.md": ("1\n", "0\n"),
}


@pytest.mark.parametrize("page", COMMANDS)
def test_the_commands_of_the_manual_print_what_it_says(page: str, host: Host) -> None:
    text = (SOURCE.parents[2] / "docs/mail-servers" / page).read_text()
    [command] = [block.partition("```")[0] for block in text.split("```sh\n")[1:]]
    with serving(host) as daemon:
        command = command.replace("/run/cvm-rcptto/socket", str(daemon.path)).replace("example.com", "example.org")
        command = command.replace("/opt/cvm-qmail/bin/cvm-rcptcheck", str(INSTALLED))
        for line, printed in zip((command, command.replace("nobody@", "joe@")), COMMANDS[page], strict=True):
            done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=False)
            assert (done.stdout, done.stderr) == (printed, "")


def test_the_installed_script_is_this_file() -> None:
    ours = Path(rcptcheck.__file__).read_bytes()
    assert INSTALLED.read_bytes() == ours, "install the project again"
    assert os.access(INSTALLED, os.X_OK)


def test_the_script_imports_next_to_nothing() -> None:
    tree = ast.parse(Path(rcptcheck.__file__).read_bytes())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert names == {"os", "_socket"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]


def test_every_class_of_rejection_is_known_in_both_languages() -> None:
    statuses = {Rejection.FULL: "FULL", Rejection.DISABLED: "DISABLED", Rejection.BLOCKED: "BLOCKED"}
    words = {
        reason.word: statuses[reason.rejection]
        for reason in REASONS
        if reason.outcome is Outcome.REJECTED and reason.rejection in statuses
    }
    assert {name.decode(): value for name, value in rcptcheck.REJECTIONS.items()} == {
        name: getattr(rcptcheck, status) for name, status in words.items()
    }
    source = SOURCE.read_text()
    table = source[source.index("} rejections[]") : source.index("struct bytes")]
    assert {
        tuple(row.strip(" {}").replace('"', "").split(", ")) for row in table.splitlines() if row.startswith("    {")
    } == {(f"{name}", f"{status}}},") for name, status in words.items()}


def test_both_languages_have_the_texts_of_the_gateway() -> None:
    for file in (Path(rcptcheck.__file__), SOURCE):
        text = file.read_text()
        for reply in REPLIES.values():
            assert reply.code == 250 or str(reply) in text, reply


def test_a_link_to_the_script_works(host: Host) -> None:
    with serving(host) as daemon, temporary_directory() as directory:  # pipx puts a link into ~/.local/bin
        link = directory / "cvm-rcptcheck"
        link.symlink_to(INSTALLED)
        done = MAIL_SERVERS[1].call(link, b"nobody@example.org", CVM_LOOKUP=daemon.module)
    assert done.text == f"{MISSING}\r\n".encode()


def test_the_gateway_throttles_who_probes(program: Path, host: Host) -> None:
    limit = {"CVM_GATEWAY_PROBE_LIMIT": "2/3600", "CVM_LOOKUP_SECRET": ""}
    with serving(host) as daemon, gateway(daemon.module, **limit) as running:
        setting = f"unix:{running.directory}/policy"

        def call(server: MailServer, address: bytes, client: str) -> str:
            return server.reply(server.call(program, address, CVM_GATEWAY=setting, TCPREMOTEIP=client))

        for server in MAIL_SERVERS:
            client = f"192.0.2.{MAIL_SERVERS.index(server)}"
            assert call(server, b"joe@example.org", client) == "250 ok\r\n"
            assert call(server, b"x@elsewhere.test", client) == "250 ok\r\n"
            for name in (b"a", b"b", b"c"):
                assert call(server, name + b"@example.org", client) == expected(server, MISSING)
            assert call(server, b"joe@example.org", client)[0] == "4"
            assert call(server, b"joe@example.org", "198.51.100.1") == "250 ok\r\n"
    assert call(MAIL_SERVERS[0], b"joe@example.org", "198.51.100.1")[0] == "4"
