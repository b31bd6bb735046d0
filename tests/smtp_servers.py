"""Mail servers from build/peers (scripts/setup.sh, need_mail_servers), and sessions with them.

Each runs from a directory of its own, on a port of loopback; nothing of the host's own mail server is read or changed.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from gateways import Gateway, free_port, gateway
from hosts import Host, plain_host, temporary_directory
from serving import PATIENCE, end, serving, until

PEERS = Path(__file__).parents[1] / "build" / "peers"

SENDER = b"sender@client.test"

OUTCOMES = {
    b"joe@example.org": "accepted",
    b"joe-foo@example.org": "accepted",
    b"ann-x=y@example.org": "accepted",
    b"JOE@EXAMPLE.ORG": "accepted",
    b"nobody@example.org": "rejected",
    b"joe-bar@example.org": "rejected",
    b"late@example.org": "temporary_failure",
    b"joe@elsewhere.test": "out_of_scope",
}
"""Addresses of the host of `qmail_host`."""


def needs(package: str) -> pytest.MarkDecorator:
    """Skips where a server was not brought to build/peers."""
    return pytest.mark.skipif(not (PEERS / package).is_dir(), reason=f"PEER MISSING: {package} in build/peers")


def qmail_host(directory: Path) -> Host:
    """A plain host, with a user whose mail qmail puts off: anybody may write to the home."""
    host = plain_host(directory)
    host.user("late", 5003, mode=0o777)
    accounts = "joe:x:5001:5001::{root}/home/joe:/bin/sh", "ann:x:5002:5002::{root}/home/ann:/bin/sh"
    host.passwd(*accounts, "late:x:5003:5003::{root}/home/late:/bin/sh")
    return host


class Asked:
    """A qmail host, its daemon, and the gateway that asks it."""

    def __init__(self, host: Host, path: Path, running: Gateway) -> None:
        self.gateway = running
        self._host = host
        self._path = path
        self._daemon = ExitStack()
        self._runs = False

    def start(self) -> None:
        """The daemon runs from now on."""
        if not self._runs:
            self._daemon.enter_context(serving(self._host, path=self._path, CVM_LOOKUP_SECRET="hush"))
            self._runs = True

    def stop(self) -> None:
        """It does not run any more."""
        self._daemon.close()
        self._runs = False


@contextmanager
def asked() -> Iterator[Asked]:
    """A gateway in front of a qmail host whose daemon does not run yet."""
    with temporary_directory() as directory:
        directory.chmod(0o755)
        (directory / "root").mkdir()
        path = directory / "module"
        with gateway(f"cvm-local:{path}", CVM_LOOKUP_SECRET="hush", CVM_SOCKET_MODE="0777") as running:
            pair = Asked(qmail_host(directory / "root"), path, running)
            try:
                yield pair
            finally:
                pair.stop()


class Session:
    """An SMTP session, in bytes."""

    def __init__(self, port: int) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._buffer = b""
        self.greeting = self.reply()

    def reply(self) -> bytes:
        """The next reply, all lines of it; empty: the connection is closed."""
        lines = b""
        while True:
            while b"\n" not in self._buffer:
                data = self._connection.recv(4096)
                if not data:
                    return b""
                self._buffer += data
            line, _, self._buffer = self._buffer.partition(b"\n")
            lines += line + b"\n"
            if line[3:4] != b"-":
                return lines

    def say(self, line: bytes) -> bytes:
        """The reply to a command."""
        self._connection.sendall(line + b"\r\n")
        return self.reply()

    def close(self) -> None:
        """Hangs up."""
        self._connection.close()


@contextmanager
def session(port: int, sender: bytes = SENDER) -> Iterator[Session]:
    """A session in which MAIL has been said."""
    talk = Session(port)
    try:
        assert talk.greeting.startswith(b"220"), talk.greeting
        assert talk.say(b"EHLO client.test").startswith(b"250")
        assert talk.say(b"MAIL FROM:<" + sender + b">").startswith(b"250")
        yield talk
    finally:
        talk.close()


def rcpt(port: int, address: bytes, sender: bytes = SENDER) -> bytes:
    """The reply to one recipient."""
    with session(port, sender) as talk:
        return talk.say(b"RCPT TO:<" + address + b">")


class Front(NamedTuple):
    """A mail server that asks a gateway."""

    asked: Asked
    port: int


def each_outcome_has_its_reply(asked: Asked, port: int, replies: Mapping[str, bytes]) -> None:
    """`replies`: how the reply to RCPT begins, by outcome; in a session of its own, and all of them in one."""
    asked.start()
    for address, outcome in OUTCOMES.items():
        assert rcpt(port, address).startswith(replies[outcome]), address
    with session(port) as talk:
        for address, outcome in OUTCOMES.items():
            assert talk.say(b"RCPT TO:<" + address + b">").startswith(replies[outcome]), address


def a_stopped_daemon_is_asked_again(
    asked: Asked, port: int, meanwhile: bytes, address: bytes = b"joe@example.org", reply: bytes = b"250 "
) -> None:
    """`meanwhile`: how each reply begins while it is stopped; `address` gets `reply` when it is back."""
    asked.stop()
    with session(port) as talk:
        for one in OUTCOMES:
            assert talk.say(b"RCPT TO:<" + one + b">").startswith(meanwhile), one
        asked.start()
        assert talk.say(b"RCPT TO:<" + address + b">").startswith(reply)


def listens(port: int) -> bool:
    """Whether somebody does."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(command: Sequence[str | Path], port: int, log: Path, env: Mapping[str, str], cwd: Path) -> Iterator[None]:
    """A server, until the end of the block; it is one when its port takes connections."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    try:
        until(lambda: process.poll() is not None or listens(port), f"{command[0]} listens")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        end(process)


# -- Postfix ----------------------------------------------------------------------------------------------------------

QUEUES = ("active", "corrupt", "defer", "deferred", "hold", "incoming", "maildrop", "pid", "private", "public")


def write_old(path: Path, text: str) -> None:
    """Writes main.cf an hour ago: each program of Postfix waits until it has not changed for two seconds."""
    path.write_text(text)
    os.utime(path, (time.time() - 3600,) * 2)


class Postfix:
    """A Postfix in a directory: its tools, and any number of smtpd's."""

    def __init__(self, directory: Path, proxied: str) -> None:
        """`proxied`: the table that proxymap may look into."""
        self.directory = directory
        self._proxied = proxied
        self._root = PEERS / "postfix"
        self.environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LD_LIBRARY_PATH": str(self._root / "usr/lib/postfix"),
            "MAIL_CONFIG": str(directory / "etc"),
        }
        self.queue = directory / "queue"
        for name in ("etc", "data", *(f"queue/{name}" for name in QUEUES)):
            (directory / name).mkdir(parents=True)
        for name in QUEUES:
            if name != "pid":
                shutil.chown(self.queue / name, "daemon")
        shutil.chown(directory / "data", "daemon")
        self._main()

    def _main(self) -> None:
        """Its accounts are two that every Debian has: the package's own are not there, since it is not installed."""
        root = self._root
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": self.queue,
            "data_directory": self.directory / "data",
            "command_directory": root / "usr/sbin",
            "daemon_directory": root / "usr/lib/postfix/sbin",
            "shlib_directory": root / "usr/lib/postfix",
            "meta_directory": root / "etc/postfix",
            "mail_owner": "daemon",
            "setgid_group": "games",
            "import_environment": "MAIL_CONFIG LD_LIBRARY_PATH",
            "maillog_file": self.directory / "log",
            "maillog_file_prefixes": self.directory,
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "myhostname": "mx.client.test",
            "mydestination": "",
            "mynetworks": "",
            "alias_maps": "",
            "local_recipient_maps": "",
            "alias_database": "",
            "notify_classes": "",
            "smtpd_timeout": "20s",
            "smtpd_error_sleep_time": "0s",
            "in_flow_delay": "0s",  # no queue manager runs
            "relay_domains": "example.org elsewhere.test",
            "smtpd_relay_restrictions": "reject_unauth_destination",
            "proxy_read_maps": f"proxy:{self._proxied}",
        }
        text = "".join(f"{name} = {value}\n" for name, value in settings.items())
        write_old(self.directory / "etc/main.cf", text)

    def postmap(self, key: str, table: str) -> subprocess.CompletedProcess[str]:
        """``postmap -q KEY TABLE``."""
        command = [self._root / "usr/sbin/postmap", "-q", key, table]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    @contextmanager
    def serving(self, **services: Mapping[str, str]) -> Iterator[dict[str, int]]:
        """An smtpd for each name, with these settings; the ports by name.  A setting "chroot" = "y": in a chroot."""
        ports = {name: free_port() for name in services}
        lines = []
        for name, settings in services.items():
            options = [f"\n  -o {{ {key} = {value} }}" for key, value in settings.items() if key != "chroot"]
            lines.append(f"127.0.0.1:{ports[name]} inet n - {settings.get('chroot', 'n')} - - smtpd{''.join(options)}")
        lines += [
            "rewrite unix - - n - - trivial-rewrite",
            "proxymap unix - - n - - proxymap",
            "cleanup unix n - n - 0 cleanup",
            "anvil unix - - n - 1 anvil",
            "postlog unix-dgram n - n - 1 postlogd",
        ]
        (self.directory / "etc/master.cf").write_text("\n".join(lines) + "\n")
        master = [self._root / "usr/lib/postfix/sbin/master", "-d", "-c", self.directory / "etc"]
        port = [*ports.values()][-1]  # it listens at one after the other
        with running(master, port, self.directory / "out", self.environment, self.directory):
            yield ports


# -- Exim -------------------------------------------------------------------------------------------------------------

EXIM_USER = 5190
"""For Debian-exim, which this Exim insists on, and which is not there, since the package is not installed."""

EXIM = """\
keep_environment = NSS_WRAPPER_PASSWD : NSS_WRAPPER_GROUP
primary_hostname = mx.client.test
spool_directory = {directory}/spool
log_file_path = {directory}/log.%s
tls_advertise_hosts =
host_lookup =
rfc1413_query_timeout = 0s
acl_smtp_rcpt = rcpt
domainlist ours = example.org : elsewhere.test
begin acl
rcpt:
  require domains = +ours
{acl}
  accept
begin routers
begin transports
"""


@contextmanager
def exim(acl: str) -> Iterator[int]:
    """An Exim whose ACL for RCPT has these lines, between "require domains" and "accept"; the port."""
    with temporary_directory() as directory:
        config, port = directory / "config", free_port()
        config.write_text(EXIM.format(directory=directory, acl=acl))
        (directory / "spool").mkdir()
        account = f"Debian-exim:x:{EXIM_USER}:{EXIM_USER}::{directory}:/bin/false\n"
        (directory / "passwd").write_text(Path("/etc/passwd").read_text() + account)
        (directory / "group").write_text(Path("/etc/group").read_text() + f"Debian-exim:x:{EXIM_USER}:\n")
        for path in (directory, directory / "spool"):
            os.chown(path, EXIM_USER, EXIM_USER)
        environment = {
            "LD_PRELOAD": "libnss_wrapper.so",
            "NSS_WRAPPER_PASSWD": str(directory / "passwd"),
            "NSS_WRAPPER_GROUP": str(directory / "group"),
        }
        program = PEERS / "exim4-daemon-light/usr/sbin/exim4"
        command = [program, "-C", config, "-bdf", "-oX", f"127.0.0.1.{port}"]
        with running(command, port, directory / "out", environment, directory):
            yield port


# -- Haraka -----------------------------------------------------------------------------------------------------------


@contextmanager
def haraka(deliverable: int) -> Iterator[int]:
    """A Haraka whose plug-in asks at this port; its own port."""
    with temporary_directory() as directory:
        port, modules = free_port(), PEERS / "haraka/node_modules"
        (directory / "node_modules").symlink_to(modules)
        (directory / "config").mkdir()
        shutil.copy(modules / "Haraka/config/connection.ini", directory / "config")
        for name, text in {
            "plugins": "qmail-deliverable\n",
            "qmail-deliverable.ini": f"check_mail_from=false\nhost=127.0.0.1\nport={deliverable}\n",
            "smtp.ini": f"listen=127.0.0.1:{port}\nnodes=0\n",
            "me": "mx.client.test\n",
        }.items():
            (directory / "config" / name).write_text(text)
        command = ["node", directory / "node_modules/Haraka/bin/haraka", "-c", directory]
        with running(command, port, directory / "out", os.environ, directory):
            yield port


# -- qpsmtpd ----------------------------------------------------------------------------------------------------------


@contextmanager
def qpsmtpd(*plugins: str, hosts: Sequence[str] = ()) -> Iterator[int]:
    """A qpsmtpd with these plug-ins before rcpt_ok, for these domains; the port."""
    with temporary_directory() as directory:
        root, port = PEERS / "qpsmtpd/usr", free_port()
        for name, text in {
            "plugin_dirs": f"{root}/share/qpsmtpd/plugins\n",
            "plugins": "".join(f"{plugin}\n" for plugin in (*plugins, "rcpt_ok", "queue/maildir Maildir")),
            "rcpthosts": "".join(f"{name}\n" for name in hosts),
            "me": "mx.client.test\n",
            "loglevel": "6\n",
            "spool_dir": f"{directory}/spool\n",
            "size_threshold": "10000\n",
        }.items():
            (directory / name).write_text(text)
        (directory / "spool").mkdir(mode=0o700)
        libraries = ["-I", root / "share/perl5", "-I", Path(__file__).parent / "perl"]
        options = ["-u", "root", "-l", "127.0.0.1", "-p", str(port), "-H"]
        command = ["perl", "-T", *libraries, root / "bin/qpsmtpd-forkserver", *options]
        environment = {"PATH": "/usr/bin:/bin", "QPSMTPD_CONFIG": str(directory)}
        with running(command, port, directory / "out", environment, directory):
            yield port
