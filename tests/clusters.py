"""Databases on several servers: a cluster of Galera, a primary of MariaDB or of PostgreSQL with a replica."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from databases import IDS, PGSQL_PORT, Database, MariaDb, PostgreSql, postgres
from hosts import temporary_directory
from serving import free_port, until

GALERA = Path("/usr/lib/galera/libgalera_smm.so")


def free_ports(count: int) -> list[int]:
    """TCP ports on which nobody listened a moment ago."""
    return [free_port() for _ in range(count)]


class GaleraNode(MariaDb):
    """One node.  The first one makes the cluster; others begin with a copy of its files, and get what is new."""

    def __init__(self, directory: Path, first: GaleraNode | None = None, seed: Path | None = None) -> None:
        self.first = first
        self.seed = seed
        self.ports = free_ports(3)
        super().__init__(directory)

    def prepare(self) -> None:
        if self.seed is None:
            super().prepare()
            return
        data = self.directory / "data"
        self.run("cp", "-a", str(self.seed), str(data))
        (data / "galera.cache").unlink(missing_ok=True)

    def command(self) -> list[str]:
        port, transfer, snapshot = self.ports
        provider = {
            "gmcast.listen_addr": f"tcp://127.0.0.1:{port}",
            "ist.recv_addr": f"127.0.0.1:{transfer}",
            "gcache.size": "4M",
            "evs.keepalive_period": "PT0.3S",
            "evs.inactive_check_period": "PT0.3S",
            "evs.suspect_timeout": "PT1.5S",
            "evs.inactive_timeout": "PT3S",
        }
        others = "" if self.first is None else f"127.0.0.1:{self.first.ports[0]}"
        return [
            *super().command(),
            "--binlog-format=ROW",
            "--innodb-autoinc-lock-mode=2",
            "--wsrep-on=ON",
            f"--wsrep-provider={GALERA}",
            f"--wsrep-cluster-address=gcomm://{others}",
            "--wsrep-cluster-name=cvm",
            f"--wsrep-node-address=127.0.0.1:{port}",
            "--wsrep-sst-method=rsync",
            f"--wsrep-sst-receive-address=127.0.0.1:{snapshot}",
            f"--wsrep-provider-options={';'.join(f'{name}={value}' for name, value in provider.items())}",
        ]

    def answers(self) -> bool:
        return super().answers() and self.state == "4"

    @property
    def state(self) -> str:
        """wsrep_local_state: 4 in step, 2 desynced, 0 without a quorum."""
        return self.sql("SHOW STATUS LIKE 'wsrep_local_state';", check=False).split()[-1]

    @contextmanager
    def behind(self) -> Iterator[None]:
        """The node is desynced, and applies nothing."""
        self.sql("SET GLOBAL wsrep_desync = ON;")
        try:
            with self._holding(*self.client(""), "--unbuffered", text="FLUSH TABLES WITH READ LOCK; SELECT 'held';\n"):
                yield
        finally:
            self.sql("SET GLOBAL wsrep_desync = OFF;", check=False)

    def end(self) -> None:
        """Ends in good order."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(60)


@contextmanager
def galera(count: int = 3) -> Iterator[Sequence[GaleraNode]]:
    """A cluster, until the end; nothing of it is left."""
    with ExitStack() as stack:
        nodes: list[GaleraNode] = []
        stack.callback(lambda: [node.kill() for node in nodes])
        first = GaleraNode(stack.enter_context(temporary_directory()))
        nodes.append(first)
        first.end()  # its files say now where the cluster stands
        others = [stack.enter_context(temporary_directory()) for _ in range(count - 1)]
        seed = stack.enter_context(temporary_directory()) / "data"
        first.run("cp", "-a", str(first.directory / "data"), str(seed))
        first.start()
        nodes += (GaleraNode(directory, first, seed) for directory in others)  # two at once may not find together
        until(lambda: all(node.state == "4" for node in nodes), "the cluster is in step")
        yield nodes


class MariaDbPrimary(MariaDb):
    """A server that another one follows."""

    number = 1

    def __init__(self, directory: Path) -> None:
        self.port = free_ports(1)[0]
        super().__init__(directory)

    def command(self) -> list[str]:
        command = [word for word in super().command() if word != "--skip-networking"]
        network = ["--bind-address=127.0.0.1", f"--port={self.port}"]
        return [*command, *network, f"--server-id={self.number}", "--log-bin=binlog", "--binlog-format=ROW"]


class MariaDbReplica(MariaDbPrimary):
    """A server that follows a primary, as MySQL's do: it cannot say whether it has all that the primary has."""

    number = 2

    def __init__(self, directory: Path, primary: MariaDbPrimary) -> None:
        super().__init__(directory)
        self.primary = primary
        primary.sql("CREATE USER follower IDENTIFIED BY 'f'; GRANT REPLICATION SLAVE ON *.* TO follower;")
        place = f"MASTER_HOST='127.0.0.1', MASTER_PORT={primary.port}, MASTER_CONNECT_RETRY=1"
        self.sql(f"CHANGE MASTER TO {place}, MASTER_USER='follower', MASTER_PASSWORD='f', MASTER_USE_GTID=slave_pos;")
        self.sql("START SLAVE;")

    @contextmanager
    def behind(self) -> Iterator[None]:
        """It applies nothing."""
        self.sql("STOP SLAVE SQL_THREAD;")
        try:
            yield
        finally:
            self.sql("START SLAVE SQL_THREAD;", check=False)

    def in_step(self) -> bool:
        """Whether it has applied all that the primary has."""
        return self.sql("SELECT @@gtid_slave_pos;") == self.primary.sql("SELECT @@gtid_binlog_pos;")


class Primary(PostgreSql):
    """A server that another one follows."""

    def prepare(self) -> None:
        super().prepare()
        with (self.directory / "data/pg_hba.conf").open("a") as rules:
            rules.write("local replication admin trust\n")
        with (self.directory / "data/postgresql.conf").open("a") as settings:
            settings.write("wal_sender_timeout = 2s\n")  # twice as often it says that nothing is new


class Replica(PostgreSql):
    """A server that follows a primary."""

    def __init__(self, directory: Path, primary: Primary) -> None:
        self.primary = primary
        super().__init__(directory)

    def prepare(self) -> None:
        copy = [postgres("pg_basebackup"), "-D", str(self.directory / "data"), "-R", "-c", "fast", "-U", "admin"]
        self.run(*self.as_user(*copy, "-h", str(self.primary.directory), "-p", str(PGSQL_PORT)))
        (self.directory / "data").chmod(0o700)
        os.chown(self.directory / "data", *IDS[self.user])

    @contextmanager
    def behind(self) -> Iterator[None]:
        """It applies nothing."""
        self.sql("SELECT pg_wal_replay_pause();")
        until(lambda: "paused" in self.sql("SELECT pg_get_wal_replay_pause_state();").split(), "it stands still")
        try:
            yield
        finally:
            self.sql("SELECT pg_wal_replay_resume();", check=False)

    def in_step(self) -> bool:
        """Whether it has applied all that the primary has."""
        place = self.primary.sql("SELECT pg_current_wal_flush_lsn();").strip()
        return "t" in self.sql(f"SELECT pg_last_wal_replay_lsn() >= '{place}';").split()


P = TypeVar("P", bound=Database)
R = TypeVar("R", bound=Database)


@contextmanager
def _pair(make_primary: Callable[[Path], P], make_replica: Callable[[Path, P], R]) -> Iterator[tuple[P, R]]:
    """A primary and its replica, until the end; nothing of them is left."""
    with ExitStack() as stack:
        primary = make_primary(stack.enter_context(temporary_directory()))
        stack.callback(primary.kill)
        replica = make_replica(stack.enter_context(temporary_directory()), primary)
        stack.callback(replica.kill)
        yield primary, replica


def mariadb_pair() -> AbstractContextManager[tuple[MariaDbPrimary, MariaDbReplica]]:
    """Two of MariaDB."""
    return _pair(MariaDbPrimary, MariaDbReplica)


def replicated() -> AbstractContextManager[tuple[Primary, Replica]]:
    """Two of PostgreSQL."""
    return _pair(Primary, Replica)
