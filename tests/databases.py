"""Real database servers for tests: on private sockets, in a temporary folder, as an unprivileged user."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hosts import a_folder
from serving import PATIENCE, until

NAME, USER, PASSWORD = "vpopmail", {"mysql": "vpopmail", "pgsql": "postgres"}, "testdbpass"
"""As the corpus's files have them."""

PGSQL_PORT = 54329


def postgres(name: str) -> str:
    """A program of PostgreSQL, wherever the distribution has it."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((str(folder / name) for folder in folders if (folder / name).exists()), shutil.which(name) or name)


class Database:
    """A server that can be stopped, killed and started again."""

    kind = ""
    user = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        shutil.chown(folder, self.user)
        self.prepare()
        self.start()

    def prepare(self) -> None:
        """Makes the server's own files."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """What starts the server."""
        raise NotImplementedError

    def sql(self, text: str, database: str = "", *, check: bool = True) -> str:
        """Has the server carry out statements, as its administrator."""
        raise NotImplementedError

    def fill(self, path: Path, root: Path) -> None:
        """The database `vpopmail` as a file of the corpus makes it, and the user who may read it."""
        self.empty()
        self.sql(path.read_text("utf-8").replace("{root}", str(root)), NAME)
        self.grant()

    @property
    def placeholders(self) -> dict[str, str]:
        """What stands for it in the corpus's files."""
        raise NotImplementedError

    def empty(self) -> None:
        """A new, empty database `vpopmail`."""
        raise NotImplementedError

    def grant(self) -> None:
        """The user of the corpus's files may read, and nothing else."""
        raise NotImplementedError

    # -- the process ------------------------------------------------------------------------------

    def as_user(self, *command: str) -> list[str]:
        return [
            "setpriv",
            f"--reuid={self.user}",
            f"--regid={self.user}",
            "--clear-groups",
            "--pdeathsig=KILL",
            *command,
        ]

    def run(self, *command: str, text: str | None = None, check: bool = True) -> str:
        """Runs a program to its end; what it says."""
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=PATIENCE * 3, check=False, cwd=self.folder
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self) -> None:
        """Starts, and waits until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.folder)
        until(self.answers, f"{self.kind} answers: {(self.folder / 'log').read_text()}")

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        return "1" in self.sql("SELECT 1;", check=False).split()

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.send(signal.SIGCONT)
        self.process.kill()
        self.process.wait(PATIENCE)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Its processes hang: SIGSTOP."""
        pids = self.pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def pids(self) -> list[int]:
        """The server, and its children."""
        assert self.process is not None
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]


class MariaDb(Database):
    """MariaDB."""

    kind = "mysql"
    user = "mysql"

    @property
    def socket(self) -> str:
        return str(self.folder / "sock")

    def prepare(self) -> None:
        self.run(
            "mariadb-install-db",
            "--no-defaults",
            f"--user={self.user}",
            f"--datadir={self.folder / 'data'}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--innodb-log-file-size=4M",
        )

    def command(self) -> list[str]:
        return self.as_user(
            "mariadbd",
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            f"--socket={self.socket}",
            f"--pid-file={self.folder / 'data/pid'}",
            "--skip-networking",
            "--innodb-log-file-size=4M",
            "--innodb-buffer-pool-size=32M",
            "--innodb-flush-log-at-trx-commit=0",
        )

    def sql(self, text: str, database: str = "", *, check: bool = True) -> str:
        client = [
            "mariadb",
            "--no-defaults",
            f"--socket={self.socket}",
            "--user=root",
            "-N",
            "--default-character-set=utf8mb4",
        ]
        return self.run(*client, *([database] if database else []), text=text, check=check)

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

    def prepare(self) -> None:
        self.run(*self.as_user(postgres("initdb"), "-D", str(self.folder / "data"), "-U", "admin", "-A", "trust", "-N"))
        (self.folder / "data/pg_hba.conf").write_text("local all admin trust\nlocal all all scram-sha-256\n")

    def command(self) -> list[str]:
        settings = {"listen_addresses": "", "fsync": "off", "max_connections": "30"}
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        return self.as_user(
            postgres("postgres"),
            "-D",
            str(self.folder / "data"),
            "-k",
            str(self.folder),
            "-p",
            str(PGSQL_PORT),
            *options,
        )

    def sql(self, text: str, database: str = "", *, check: bool = True) -> str:
        client = ["psql", "-h", str(self.folder), "-p", str(PGSQL_PORT), "-U", "admin", "-d", database or "postgres"]
        return self.run(*client, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", text=text, check=check)

    def empty(self) -> None:
        self.sql(f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE); CREATE DATABASE {NAME};".replace("; ", ";\n"))

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
        return {"{pgsql_socket_dir}": str(self.folder)}


@contextmanager
def running(kind: type[Database]) -> Iterator[Database]:
    """A server, until the end; nothing of it is left."""
    with a_folder() as folder:
        server = kind(folder)
        try:
            yield server
        finally:
            server.kill()
