"""A directory that is read from a replica: what has just been published is not rejected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from clusters import mariadb_pair, replicated
from databases import Database
from directories import CVM_DIRECTORY, NAME, Directory, made, mx
from hosts import Host
from serving import Server, serving, until
from test_corpus import verdict

pytestmark = [pytest.mark.root, pytest.mark.peer("mariadbd", "pg_ctlcluster", "setpriv")]


def named(server: Database) -> str:
    """As CVM_DIRECTORY_SERVERS and CVM_DIRECTORY_PRIMARY name it."""
    return server.socket if server.kind == "mysql" else str(server.directory)


def say(server: Server, *addresses: str) -> list[str]:
    return [verdict(server.ask(*address.split("@"))) for address in addresses]


def publishing(directory: Directory, host: Host, primary: Database, replica: Database) -> Callable[[], None]:
    """Publishes what there is now, told of both."""

    def publish() -> None:
        told = {"CVM_DIRECTORY_SERVERS": named(replica), "CVM_DIRECTORY_PRIMARY": named(primary)}
        done = directory.publish(host.environment, **told)
        assert done.returncode == 0, done.stderr

    return publish


def add(host: Host) -> None:
    """An address, and a domain."""
    host.file("home/joe/.qmail-new", uid=5001, gid=5001)
    control = Path(host.root) / "control/virtualdomains"
    control.write_text(control.read_text() + "new.example:joe\n")


def test_the_primary_decides_before_an_address_is_rejected(host: Host) -> None:
    with mariadb_pair() as (primary, replica), made(primary) as directory:
        publish = publishing(directory, host, primary, replica)
        publish()
        until(replica.in_step, "the replica is in step")
        servers = {"CVM_DIRECTORY_SERVERS": replica.socket}
        with (
            serving(mx(directory, **servers, CVM_DIRECTORY_PRIMARY=primary.socket), program=CVM_DIRECTORY) as careful,
            serving(mx(directory, **servers), program=CVM_DIRECTORY) as careless,
        ):
            known = ("joe@example.org", "foo@v.example", "nobody@example.org", "joe@elsewhere.example")
            assert say(careful, *known) == say(careless, *known) == ["deliver", "deliver", "no-mailbox", "remote"]
            with replica.behind():
                add(host)
                publish()  # to the primary, although the replica is named first and takes what is written
                late = ("new@v.example", "new@new.example")
                assert say(careful, *late) == ["deliver", "deliver"]
                assert say(careless, *late) == ["no-mailbox", "remote"], "as the documents warn"
                assert say(careful, *known) == ["deliver", "deliver", "no-mailbox", "remote"]
                primary.kill()
                assert say(careful, *known) == ["deliver", "deliver", "defer", "defer"], "not confirmed, not rejected"
                assert "database-down" in careful.logged("? nobody@example.org")
            primary.start()
            until(lambda: say(careful, "nobody@example.org") == ["no-mailbox"], "the primary is asked again")
            until(lambda: say(careless, *late) == ["deliver", "deliver"], "it has caught up")


def test_a_replica_that_is_behind_rejects_nobody(host: Host) -> None:
    with replicated() as (primary, replica), made(primary) as directory:
        directory.database.sql("GRANT pg_read_all_stats TO reader;", NAME)
        publish = publishing(directory, host, primary, replica)
        publish()
        until(replica.in_step, "the replica is in step")
        lag = {"CVM_DIRECTORY_SERVERS": str(replica.directory), "CVM_DIRECTORY_MAX_LAG": "4"}
        both = {**lag, "CVM_DIRECTORY_SERVERS": f"{replica.directory} {primary.directory}"}
        with (
            serving(mx(directory, **lag), program=CVM_DIRECTORY) as alone,
            serving(mx(directory, **both), program=CVM_DIRECTORY) as first,
        ):
            until(lambda: say(alone, "nobody@example.org") == ["no-mailbox"], "a replica that is in step rejects")
            with replica.behind():
                add(host)
                publish()
                until(lambda: say(alone, "new@v.example") == ["defer"], "too far behind to reject")
                assert "database-lag" in alone.logged("? new@v.example")
                assert say(alone, "joe@example.org", "new@new.example") == ["deliver", "defer"]
                said = say(first, "new@v.example", "nobody@v.example")
                assert said == ["deliver", "no-mailbox"], "the next server knows"
            until(lambda: say(alone, "new@v.example") == ["deliver"], "it has caught up")
