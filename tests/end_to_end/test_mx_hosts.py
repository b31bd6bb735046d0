"""Two MX hosts without mailboxes, three mailbox hosts behind HAProxy, all on this machine, under load.

    Postfix, socketmap clients -> gateway --routes (twice) -> TLS -> HAProxy -> gateway http: -> daemon (three times)

Each part is killed, stopped, restarted and upgraded in turn.  No answer may be wrong at any time.  Temporary failures
are allowed for the domain of the part, or on the MX of the part, from then until `STATED` seconds after it is back.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

import pytest
from databases import MariaDb, running, sql_host
from gateways import CVM_GATEWAY, netstring
from hosts import plain_host, temporary_directory
from serving import CVM_QMAIL, PATIENCE, Served, environment, free_port, until
from smtp_servers import Postfix, listens, needs, session, write_old
from tls import Authority
from vdomains import UID, vpopmail_host

pytestmark = [pytest.mark.root, needs("postfix"), pytest.mark.peer("haproxy", "mariadbd", "openssl")]

STATED = 4.0
"""Seconds for which mail may be delayed when a host is back: docs/mx-hosts.md."""

SLACK = 8.0
"""Seconds more, for a machine that has other work to do."""

ANSWERS = {True: b"4:OK 1,", False: b"9:NOTFOUND ,"}

REPLIES = {True: b"250 2.1.5", False: b"550 5.1.1"}

CONFIG = Path(__file__).parents[2] / "contrib" / "haproxy" / "mailbox-host.cfg"


class Part:
    """A server that can be killed, stopped, restarted and upgraded."""

    def __init__(
        self, name: str, command: list[str | Path], env: dict[str, str], ready: Callable[[], bool], log: Path
    ) -> None:
        self.name = name
        self._command = command
        self._env = env
        self._ready = ready
        self._log = log
        self.process = self._start()
        self._until_ready()

    def _start(self, *more: str) -> subprocess.Popen[bytes]:
        command = [self._command[0], *more, *self._command[1:]]
        with self._log.open("ab") as log:
            return subprocess.Popen(command, env=self._env, stdout=log, stderr=log, start_new_session=True)

    def _until_ready(self) -> None:
        try:
            until(self._ready, f"{self.name} answers")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self._log.read_text()[-2000:]}") from None

    def signal(self, number: signal.Signals) -> None:
        """To all its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait(PATIENCE)
        self.process = self._start()
        self._until_ready()

    def stop(self) -> None:
        self.signal(signal.SIGSTOP)
        time.sleep(0.5)
        self.signal(signal.SIGCONT)
        self._until_ready()

    def restart(self) -> None:
        self.end()
        self.process = self._start()
        self._until_ready()

    def upgrade(self) -> None:
        """A new process takes over; the old one finishes."""
        old, self.process = self.process, self._start("--takeover")
        assert old.wait(PATIENCE) == 0
        self._until_ready()

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.signal(signal.SIGKILL)


class Proxy(Part):
    """HAProxy: it upgrades by reloading."""

    def upgrade(self) -> None:
        before = self._workers()
        self.process.send_signal(signal.SIGUSR2)
        until(lambda: self._workers() - before, "a new worker")
        self._until_ready()

    def _workers(self) -> set[str]:
        pid = self.process.pid
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


DISTURBANCES = ("restart", "stop", "kill")
"""Methods of `Part`; upgrades have no failures."""


class Window(NamedTuple):
    """When temporary failures are allowed, and where."""

    what: str
    place: str
    """A domain, or an MX."""
    began: float
    ended: float


class Failure(NamedTuple):
    """A temporary failure."""

    at: float
    mx: str
    domain: str


class Mailboxes:
    """A mailbox host: daemon, gateway, HAProxy."""

    def __init__(self, domain: str, yes: str, directory: Path, host: Served, authority: Authority) -> None:
        self.domain = domain
        self.addresses = {f"{yes}@{domain}": True, f"nobody@{domain}": False, f"no-{yes}@{domain}": False}
        directory.mkdir()
        daemon, web, self.port = directory / "daemon", directory / "http", free_port()
        asks = {"CVM_GATEWAY_MODULE": f"cvm-local:{daemon}", "CVM_GATEWAY_LOG": "rejected"}
        certificate = authority.issue(domain, "IP:127.0.0.1")
        config = (
            CONFIG.read_text().replace("/run/cvm-gateway/http", str(web)).replace(":8443", f"127.0.0.1:{self.port}")
        )
        config = config.replace("/etc/haproxy/cvm/mailbox.pem", str(certificate))
        (directory / "cfg").write_text(config.replace("/etc/haproxy/cvm/mx-ca.pem", str(authority.certificate)))
        server = [CVM_QMAIL, f"cvm-local:{daemon}"]
        listener = [CVM_GATEWAY, f"http:unix:{web}"]
        proxy: list[str | Path] = ["haproxy", "-W", "-f", directory / "cfg"]
        self.daemon = Part(f"{domain} daemon", server, environment(host, {}), ready_at(daemon), directory / "1")
        self.gateway = Part(f"{domain} gateway", listener, environment(None, asks), ready_at(web), directory / "2")
        self.proxy = Proxy(
            f"{domain} HAProxy", proxy, environment(None, {}), lambda: listens(self.port), directory / "3"
        )

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.daemon, self.gateway, self.proxy


def reached(path: Path) -> bool:
    """Whether somebody listens at a path."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


class Client:
    """A client of socketmap."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: socket.socket | None = None

    def ask(self, request: bytes) -> bytes:
        """The answer; empty: there is none on this connection."""
        try:
            if self._connection is None:
                self._connection = socket.socket(socket.AF_UNIX)
                self._connection.settimeout(PATIENCE)
                self._connection.connect(str(self._path))
            self._connection.sendall(request)
            answer = self._connection.recv(4096)
        except OSError:
            answer = b""
        if not answer:
            self.close()
        return answer

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Load:
    """Clients of one MX, who note what they get."""

    def __init__(self, mx: str, path: Path, port: int, addresses: dict[str, bool]) -> None:
        self.mx = mx
        self._path = path
        self._port = port
        self._addresses = addresses
        self._ended = threading.Event()
        self.wrong: list[str] = []
        self.failures: list[Failure] = []
        self.right: dict[str, float] = {}
        """When each domain last got a right answer by socketmap."""
        self.answers = 0
        self._threads = [threading.Thread(target=self._ask), threading.Thread(target=self._talk)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _note(self, address: str, exists: bool, answer: bytes, right: dict[bool, bytes], temporary: bytes) -> None:
        domain = address.partition("@")[2]
        if answer.startswith(right[exists]):
            self.answers += 1
            if right is ANSWERS:
                self.right[domain] = time.monotonic()
        elif answer and temporary not in answer[:10]:
            self.wrong.append(f"{self.mx} {address}: {answer!r}")
        else:
            self.failures.append(Failure(time.monotonic(), self.mx, domain))

    def _ask(self) -> None:
        """Socketmap on one connection; if it was closed, the question is asked once more, as Postfix does."""
        with Client(self._path) as client:
            while not self._ended.is_set():
                for address, exists in self._addresses.items():
                    request = netstring(b"rcpt " + address.encode())
                    answer = client.ask(request) or client.ask(request)
                    self._note(address, exists, answer, ANSWERS, b"TEMP")
                    time.sleep(0.001 if answer else 0.02)

    def _talk(self) -> None:
        """SMTP, one session after the other."""
        while not self._ended.is_set():
            with suppress(OSError), session(self._port) as talk:
                for address, exists in self._addresses.items():
                    reply = talk.say(f"RCPT TO:<{address}>".encode())
                    self._note(address, exists, reply, REPLIES, b"451")
                    time.sleep(0.005)


class Net(NamedTuple):
    """All of it."""

    hosts: tuple[Mailboxes, ...]
    mxs: tuple[Part, ...]
    loads: tuple[Load, ...]
    database: MariaDb


@pytest.fixture
def net() -> Iterator[Net]:
    with ExitStack() as stack:
        root = stack.enter_context(temporary_directory())
        root.chmod(0o755)
        database = stack.enter_context(running(MariaDb))
        assert isinstance(database, MariaDb)
        authority = Authority(root)
        for name in ("q", "c", "s"):
            (root / name).mkdir()
        cdb = vpopmail_host(root / "c")
        cdb.control("virtualdomains", "cdb.test:cdb.test\n")
        cdb.assign(("cdb.test", "cdb.test", UID))
        cdb.domain("cdb.test")
        cdb.home_of("cdb.test", "bob")
        cdb.accounts("cdb.test", "bob")
        hosts = (
            Mailboxes("example.org", "joe", root / "1", plain_host(root / "q"), authority),
            Mailboxes("cdb.test", "bob", root / "2", cdb, authority),
            Mailboxes("example.com", "bob", root / "3", sql_host(root / "s", database), authority),
        )
        routes = root / "routes"
        routes.write_text("".join(f"{host.domain}:https://127.0.0.1:{host.port}/\n" for host in hosts))
        settings = {
            "CVM_GATEWAY_HTTPS_CA": str(authority.certificate),
            "CVM_GATEWAY_HTTPS_CERTIFICATE": str(authority.issue("mx")),
            "CVM_GATEWAY_LOG": "none",
        }
        mxs = []
        for name in ("mx1", "mx2"):
            path = root / name
            command: list[str | Path] = [CVM_GATEWAY, "--routes", routes, f"socketmap:unix:{path}"]
            ready = ready_at(path)
            mxs.append(Part(name, command, environment(None, settings), ready, root / f"{name}.log"))
        for part in (*mxs, *(part for host in hosts for part in host.parts)):
            stack.callback(part.end)
        loads = stack.enter_context(_loads(root, hosts))
        yield Net(hosts, tuple(mxs), loads, database)


def ready_at(path: Path) -> Callable[[], bool]:
    return lambda: reached(path)


@contextmanager
def _loads(root: Path, hosts: tuple[Mailboxes, ...]) -> Iterator[tuple[Load, ...]]:
    """An smtpd of Postfix for each MX, and the clients of both."""
    addresses = {address: exists for host in hosts for address, exists in host.addresses.items()}
    names = ("mx1", "mx2")
    with temporary_directory() as directory:
        postfix = Postfix(directory, "")
        main = directory / "etc/main.cf"
        domains = " ".join(host.domain for host in hosts)
        write_old(main, re.sub(r"(?m)^relay_domains = .*$", f"relay_domains = {domains}", main.read_text()))
        services = {name: {"relay_recipient_maps": f"socketmap:unix:{root}/{name}:rcpt"} for name in names}
        with postfix.serving(**services) as ports:
            loads = tuple(Load(name, root / name, ports[name], addresses) for name in names)
            for load in loads:
                load.start()
            try:
                yield loads
            finally:
                for load in loads:
                    load.end()


def wait_for_right_answers(net: Net, domains: list[str], mxs: list[str]) -> None:
    """Until each of the domains has been answered by each of the MXs, from now."""
    now = time.monotonic()
    loads = [load for load in net.loads if load.mx in mxs]
    until(lambda: all(load.right.get(domain, 0.0) > now for load in loads for domain in domains), "right answers")


def is_allowed(failure: Failure, windows: list[Window]) -> bool:
    places = (failure.mx, failure.domain)
    return any(window.place in places and window.began <= failure.at <= window.ended for window in windows)


def together(works: list[Callable[[], None]]) -> None:
    """Does all of them at the same time.  Raises what one of them raised."""
    with ThreadPoolExecutor(len(works)) as pool:
        for done in [pool.submit(work) for work in works]:
            done.result()


def upgrade(parts: Iterable[Part]) -> None:
    """One after the other."""
    for part in parts:
        part.upgrade()


def test_not_one_answer_is_wrong_whatever_fails(net: Net) -> None:
    domains, names = [host.domain for host in net.hosts], [load.mx for load in net.loads]
    wait_for_right_answers(net, domains, names)
    began = time.monotonic()

    together([partial(upgrade, host.parts) for host in net.hosts])
    together([part.upgrade for part in net.mxs])
    wait_for_right_answers(net, domains, names)
    assert [failure for load in net.loads for failure in load.failures if failure.at > began] == []

    windows: list[Window] = []
    recovered: dict[str, float] = {}

    def disturb(part: Part, place: str, events: Sequence[str], domains: list[str], mxs: list[str]) -> None:
        for event in events:
            start = time.monotonic()
            getattr(part, event)()
            back = time.monotonic()
            windows.append(Window(f"{part.name} {event}", place, start, back + STATED + SLACK))
            wait_for_right_answers(net, domains, mxs)
            recovered[f"{part.name} {event}"] = time.monotonic() - back

    def disturb_host(host: Mailboxes) -> None:
        for part in host.parts:
            disturb(part, host.domain, DISTURBANCES, [host.domain], names)

    def disturb_mxs() -> None:
        for mx in net.mxs:
            disturb(mx, mx.name, DISTURBANCES, domains, [mx.name])

    together([disturb_mxs, *(partial(disturb_host, host) for host in net.hosts)])
    start = time.monotonic()
    net.database.kill()
    net.database.start()
    windows.append(Window("database", "example.com", start, time.monotonic() + STATED + SLACK))
    wait_for_right_answers(net, ["example.com"], names)

    wrong = [text for load in net.loads for text in load.wrong]
    assert wrong == []
    failures = [failure for load in net.loads for failure in load.failures if failure.at > began]
    assert [failure for failure in failures if not is_allowed(failure, windows)] == [], windows
    assert failures, "nothing was disturbed"
    for load in net.loads:
        assert load.answers > 100
    if "MX_HOSTS_FIGURES" in os.environ:  # for docs/mx-hosts.md
        for event, seconds in sorted(recovered.items()):
            print(f"{event:30} right answers everywhere {seconds:5.2f} s after it was back")
        print(sum(load.answers for load in net.loads), "answers in", round(time.monotonic() - began, 1), "s")
