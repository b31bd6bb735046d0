"""Real database servers for tests: on private sockets, in a temporary directory, as an unprivileged user.

The files of an empty server are made once, into build/databases, and copied for each server: making them takes seconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import ClassVar, NamedTuple

from hosts import temporary_directory
from serving import PATIENCE, alive, until
from vhosts import VHost, materialise

NAME, USER, PASSWORD = "vpopmail", {"mysql": "vpopmail", "pgsql": "postgres"}, "testdbpass"
"""As the corpus's files have them."""

PGSQL_PORT = 54329
PID = "pg_backend_pid()"

KEPT = Path(__file__).parent.parent / "build/databases"
"""Where the files of empty servers are."""

IDS = {entry.pw_name: (entry.pw_uid, entry.pw_gid) for entry in pwd.getpwall()}
"""Of users, as they are before anything is mounted over /etc/passwd."""


@cache
def postgres(name: str) -> str:
    """A program of PostgreSQL, wherever the distribution has it.

    Not the one in PATH: Debian's is a script that looks for this one.
    """
    directories = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next(
        (str(directory / name) for directory in directories if (directory / name).exists()), shutil.which(name) or name
    )


class Database:
    """A server that can be stopped, killed and started again."""

    kind = ""
    user = ""
    wrapper: ClassVar[list[str]] = []
    """What is put before each program."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None
        os.chown(directory, *IDS[self.user])
        self.prepare()
        self.start()

    def prepare(self) -> None:
        """Makes the server's own files."""
        self.run("cp", "-a", str(self._empty_server()), str(self.directory / "data"))

    def _empty_server(self) -> Path:
        """The files of a server without any database; made when they are not there yet."""
        version = self.run(self.program, "--version")
        kept = KEPT / f"{self.kind}-{hashlib.sha256(f'{version} {self.initialise}'.encode()).hexdigest()[:16]}"
        KEPT.mkdir(parents=True, exist_ok=True)
        with open(KEPT / "lock", "w", encoding="ascii") as lock, temporary_directory() as directory:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                os.chown(directory, *IDS[self.user])
                self.run(*self.as_user(*(word.format(data=directory / "data") for word in self.initialise)))
                new = kept.with_suffix(".new")
                shutil.rmtree(new, ignore_errors=True)
                self.run("cp", "-a", str(directory / "data"), str(new))
                new.rename(kept)
        return kept

    @property
    def program(self) -> str:
        """The server."""
        raise NotImplementedError

    @property
    def initialise(self) -> list[str]:
        """The command that makes the files of an empty server in `{data}`."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """What starts the server."""
        raise NotImplementedError

    def client(self, database: str) -> list[str]:
        """What starts the server's own client, as its administrator."""
        raise NotImplementedError

    def sql(self, text: str, database: str = "", *, check: bool = True) -> str:
        """Has the server execute statements, as its administrator."""
        return self.run(*self.client(database), text=text, check=check)

    def fill(self, path: Path, root: Path) -> None:
        """The database `vpopmail` as a file of the corpus makes it, and the user who may read it."""
        self.empty()
        self.sql(path.read_text("utf-8").replace("{root}", str(root)), NAME)
        self.grant()

    @property
    def placeholders(self) -> dict[str, str]:
        """What stands for it in the corpus's files."""
        raise NotImplementedError

    @property
    def socket(self) -> str:
        """Its Unix socket."""
        raise NotImplementedError

    @property
    def place(self) -> str:
        """Host and port, as vpopmail's own file has them."""
        raise NotImplementedError

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Somebody has locked the table of accounts."""
        raise NotImplementedError
        yield

    @contextmanager
    def _holding(self, *command: str, text: str) -> Iterator[None]:
        """A client that has executed `text`, which says `held` at the end, and waits."""
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write(text)
            client.stdin.flush()
            assert "held" in client.stdout.readline()
            yield
            client.stdin.close()

    def empty(self) -> None:
        """A new, empty database `vpopmail`."""
        raise NotImplementedError

    def grant(self) -> None:
        """The user of the corpus's files may read, and nothing else."""
        raise NotImplementedError

    # -- the process ------------------------------------------------------------------------------

    def as_user(self, *command: str) -> list[str]:
        uid, gid = IDS[self.user]
        return ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--pdeathsig=KILL", *command]

    def run(self, *command: str, text: str | None = None, check: bool = True) -> str:
        """Runs a program to its end; what it says."""
        done = subprocess.run(
            [*self.wrapper, *command],
            input=text,
            capture_output=True,
            text=True,
            timeout=PATIENCE * 3,
            check=False,
            cwd=self.directory,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self) -> None:
        """Starts, unless it runs, and waits until it answers."""
        if self.process is not None and self.process.poll() is None:
            return
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, *self.command()], stdout=log, stderr=log, cwd=self.directory
            )
        until(self.answers, f"{self.kind} answers: {(self.directory / 'log').read_text()}")

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()
        return "1" in self.sql("SELECT 1;", check=False).split()

    def kill(self) -> None:
        """kill -9 of all its processes: a child of PostgreSQL answers for a moment after its server has gone."""
        assert self.process is not None
        if self.process.poll() is not None:
            return  # it has been killed before
        server, *children = self.pids()
        self._signal([server, *children], signal.SIGKILL)
        self.process.wait(PATIENCE)
        until(lambda: not any(map(alive, children)), "its children have gone")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Its processes hang: SIGSTOP."""
        pids = self.pids()
        self._signal(pids, signal.SIGSTOP)
        # One thread takes the signal and stops the others; until it has run, they go on answering.
        until(lambda: all(map(_has_stopped, pids)), "all its threads stop")
        try:
            yield
        finally:
            self._signal(pids, signal.SIGCONT)

    def _signal(self, pids: list[int], number: signal.Signals) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):  # children come and go
                os.kill(pid, number)

    def pids(self) -> list[int]:
        """The server, and its children."""
        assert self.process is not None
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]


def _has_stopped(pid: int) -> bool:
    """Whether all threads of a process are stopped, or it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        threads = Path(f"/proc/{pid}/task").iterdir()
        return all(thread.joinpath("stat").read_text().rpartition(")")[2].split()[0] in "TZX" for thread in threads)
    return True


class MariaDb(Database):
    """MariaDB."""

    kind = "mysql"
    user = "mysql"

    @property
    def socket(self) -> str:
        return str(self.directory / "sock")

    program = "mariadbd"

    @property
    def initialise(self) -> list[str]:
        options = ["--no-defaults", "--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db"]
        return ["mariadb-install-db", *options, *self.without_syncing]

    without_syncing: ClassVar[list[str]] = [
        "--innodb-log-file-size=4M",
        "--innodb-flush-method=nosync",
        "--debug-no-sync",
    ]
    """A server that is killed loses nothing by that: the kernel lives on."""

    def command(self) -> list[str]:
        return self.as_user(
            self.program,
            "--no-defaults",
            f"--datadir={self.directory / 'data'}",
            f"--socket={self.socket}",
            f"--pid-file={self.directory / 'data/pid'}",
            "--skip-networking",
            *self.without_syncing,
            "--innodb-buffer-pool-size=32M",
            "--innodb-flush-log-at-trx-commit=2",
        )

    def client(self, database: str) -> list[str]:
        command = ["mariadb", "--no-defaults", f"--socket={self.socket}", "--user=root", "--skip-column-names"]
        return [*command, "--default-character-set=utf8mb4", *([database] if database else [])]

    @property
    def place(self) -> str:
        return f"localhost|{self.socket}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        text = "LOCK TABLES vpopmail WRITE; SELECT 'held';\n"
        with self._holding(*self.client(NAME), "--unbuffered", text=text):
            yield

    def empty(self) -> None:
        self.sql(f"DROP DATABASE IF EXISTS {NAME}; CREATE DATABASE {NAME};")

    def grant(self) -> None:
        user = f"{USER['mysql']}@'%'"
        self.sql(f"CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{PASSWORD}'; GRANT SELECT ON {NAME}.* TO {user};")

    @property
    def placeholders(self) -> dict[str, str]:
        return {"{mysql_socket}": self.socket}


class PostgreSql(Database):
    """PostgreSQL."""

    kind = "pgsql"
    user = "postgres"

    @property
    def program(self) -> str:
        return postgres("postgres")

    @property
    def initialise(self) -> list[str]:
        return [postgres("initdb"), "-D", "{data}", "-U", "admin", "-A", "trust", "-N"]

    def prepare(self) -> None:
        super().prepare()
        (self.directory / "data/pg_hba.conf").write_text("local all admin trust\nlocal all all scram-sha-256\n")

    def command(self) -> list[str]:
        settings = {"listen_addresses": "", "fsync": "off", "max_connections": "30"}
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        return self.as_user(
            self.program,
            "-D",
            str(self.directory / "data"),
            "-k",
            str(self.directory),
            "-p",
            str(PGSQL_PORT),
            *options,
        )

    def client(self, database: str) -> list[str]:
        where = ["-h", str(self.directory), "-p", str(PGSQL_PORT), "-U", "admin", "-d", database or "postgres"]
        return [postgres("psql"), *where, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]

    @property
    def socket(self) -> str:
        return str(self.directory / f".s.PGSQL.{PGSQL_PORT}")

    @property
    def place(self) -> str:
        return f"{self.directory}|{PGSQL_PORT}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        text = "BEGIN; LOCK TABLE vpopmail IN ACCESS EXCLUSIVE MODE; SELECT 'held';\n"
        with self._holding(*self.client(NAME), text=text):
            yield

    def empty(self) -> None:
        # A new database takes ten times as long.
        others = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{NAME}' AND pid <> {PID};"
        said = self.sql(f"{others} DROP SCHEMA public CASCADE; CREATE SCHEMA public;", NAME, check=False)
        if f'database "{NAME}" does not exist' in said:
            self.sql(f"CREATE DATABASE {NAME};")
        else:
            assert "ERROR" not in said, said

    def grant(self) -> None:
        user = USER["pgsql"]
        self.sql(
            f"DO $$ BEGIN CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'; EXCEPTION WHEN duplicate_object THEN NULL; "
            f"END $$; GRANT CONNECT ON DATABASE {NAME} TO {user}; GRANT USAGE ON SCHEMA public TO {user}; "
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user};",
            NAME,
        )

    @property
    def placeholders(self) -> dict[str, str]:
        return {"{pgsql_socket_dir}": str(self.directory)}


@contextmanager
def running(kind: type[Database]) -> Iterator[Database]:
    """A server, until the end; nothing of it is left."""
    with temporary_directory() as directory:
        server = kind(directory)
        try:
            yield server
        finally:
            server.kill()


class Network:
    """A TCP port that leads to a Unix socket, until it swallows what is sent."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._swallows = threading.Event()
        self._closed = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._thread = threading.Thread(target=self._relay, daemon=True)
        self._thread.start()

    @contextmanager
    def swallowing(self) -> Iterator[None]:
        """Nothing gets through, without any error."""
        self._swallows.set()
        try:
            yield
        finally:
            self._swallows.clear()

    def close(self) -> None:
        self._closed = True
        self._thread.join(PATIENCE)
        for pair in self._pairs:
            for end in pair:
                end.close()
        self._listener.close()

    def _relay(self) -> None:
        while not self._closed:
            if self._swallows.is_set():
                self._swallows.wait(0.01)
                select.select([], [], [], 0.01)
                continue
            ends = {end: other for a, b in self._pairs for end, other in ((a, b), (b, a))}
            readable, _, _ = select.select([self._listener, *ends], [], [], 0.02)
            for end in readable:
                if self._swallows.is_set():
                    break
                if end is self._listener:
                    self._join()
                elif end.fileno() >= 0:
                    self._pass_on(end, ends[end])

    def _join(self) -> None:
        near, _ = self._listener.accept()
        far = socket.socket(socket.AF_UNIX)
        try:
            far.connect(self._target)
        except OSError:
            near.close()
            far.close()
            return
        self._pairs.append((near, far))

    def _pass_on(self, end: socket.socket, other: socket.socket) -> None:
        try:
            data = end.recv(65536)
            if data:
                other.sendall(data)
                return
        except OSError:
            pass
        self._pairs = [pair for pair in self._pairs if end not in pair]
        end.close()
        other.close()


@contextmanager
def network(target: str) -> Iterator[Network]:
    """A way to a Unix socket by TCP."""
    way = Network(target)
    try:
        yield way
    finally:
        way.close()


@contextmanager
def full_port() -> Iterator[int]:
    """A TCP port at which the kernel drops whoever knocks."""
    with socket.socket() as listener, ExitStack() as held:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = int(listener.getsockname()[1])
        for _ in range(4):
            knock = held.enter_context(socket.socket())
            knock.setblocking(False)
            knock.connect_ex(("127.0.0.1", port))
        yield port


# -- a small host -----------------------------------------------------------------------------------

TABLES = """
CREATE TABLE vpopmail (pw_name varchar(64) NOT NULL, pw_domain varchar(96) NOT NULL, pw_passwd varchar(128),
  pw_uid int, pw_gid int, pw_gecos varchar(64), pw_dir varchar(160), pw_shell varchar(20),
  PRIMARY KEY (pw_name, pw_domain));
CREATE TABLE valias (alias varchar(32) NOT NULL, domain varchar(96) NOT NULL, valias_line varchar(160) NOT NULL);
CREATE TABLE limits (domain varchar(96) NOT NULL PRIMARY KEY, disable_pop int, disable_imap int, disable_smtp int,
  disable_webmail int, disable_relay int, diskquota int, maxmsgcount int);
INSERT INTO valias VALUES ('sales', 'example.com', '&bob@example.com');
INSERT INTO limits VALUES ('example.com', 1, 0, 0, 0, 0, 0, 0);
"""
HASH = "$1$saltsalt$TryCyXcmtdG5ayUO3LdiI0"
"""Of a word of the corpus."""

ACCOUNT = "INSERT INTO vpopmail VALUES ('{name}', 'example.com', '{hash}', 0, 0, '{name}', '{home}', 'NOQUOTA');\n"


class SqlHost(NamedTuple):
    """bob is an account of example.com, sales an SQL alias; everybody else bounces."""

    vhost: VHost
    database: Database

    @property
    def environment(self) -> dict[str, str]:
        return self.vhost.environment

    @property
    def credentials(self) -> Path:
        """vpopmail's own file."""
        return self.vhost.root / f"home/vpopmail/etc/vpopmail.{self.database.kind}"

    def use(self, *, password: str = PASSWORD, port: int = 0) -> None:
        """Names the database in vpopmail's own file; `port`: by TCP."""
        kind = self.database.kind
        place = f"127.0.0.1|{port}" if port else self.database.place
        new = self.credentials.with_name("new")
        new.write_text(f"# accounts\n{place}|{USER[kind]}|{password}|{NAME}\n")
        new.rename(self.credentials)

    def tables(self) -> None:
        """Fills a new database."""
        self.database.start()
        self.database.empty()
        home = self.vhost.domains / "example.com/bob"
        self.database.sql(TABLES + ACCOUNT.format(name="bob", home=home, hash=HASH), NAME)
        self.database.grant()


def sql_host(root: Path, database: Database) -> SqlHost:
    """A host below `root` whose accounts are in `database`."""
    directory = root / "home/vpopmail/domains/example.com"
    system = {
        "qmail_dir": "{root}/var/qmail",
        "control": {"me": "mx.example.com\n", "locals": "", "virtualdomains": "example.com:example.com\n"},
        "users_assign": None,
        "users_cdb_records": [
            ["!example.com-", "\0".join(("example.com", "89", "89", str(directory), "-", ""))],
            ["", "-"],
        ],
        "passwd": [{"name": "alias", "uid": 7790, "home": "{root}/var/qmail/alias"}],
        "dirs": [
            {"path": f"{{root}}/{path}", "mode": "0755", "uid": 89, "gid": 89}
            for path in (
                "var/qmail/alias",
                "home/vpopmail/etc",
                "home/vpopmail/domains/example.com",
                *(f"home/vpopmail/domains/example.com/bob/Maildir/{name}" for name in ("cur", "new", "tmp")),
            )
        ],
        "files": [
            {
                "path": "{root}/home/vpopmail/domains/example.com/.qmail-default",
                "text": "| /home/vpopmail/bin/vdelivermail '' bounce-no-mailbox\n",
                "mode": "0600",
                "uid": 89,
                "gid": 89,
            }
        ],
        "links": [],
        "build": {"backend": database.kind, "valias": "sql", "sql_limits": True},
    }
    host = SqlHost(materialise(system, root), database)
    host.use()
    host.tables()
    return host
