"""One address, while somebody else writes the same domain."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from directories import Directory
from hosts import Host
from serving import until

from cvm_directory import rules
from cvm_directory.publishing.database import DirectoryDatabase, connected
from cvm_directory.publishing.publication import Address
from cvm_directory.publishing.publisher import Policy
from cvm_directory.publishing.single import publish
from cvm_directory.settings import DirectorySettings
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables

pytestmark = [pytest.mark.root, pytest.mark.peer("mariadbd", "pg_ctlcluster", "setpriv")]

WAITING = {
    "mysql": "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT';",
    "pgsql": "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock';",
}
POLICY = Policy("mail.example.org", force=False, include_unknown=False, dry_run=False)


def publisher(directory: Directory) -> DirectoryDatabase:
    settings = Settings.from_environment(directory.environment("publisher"))
    return connected(Tables(settings), DirectorySettings.from_settings(settings))


@pytest.mark.parametrize("directory", ["mariadb", "postgresql"], indirect=True)
def test_what_another_one_has_just_written_counts(directory: Directory, host: Host) -> None:
    directory.publish(host.environment)
    with (
        closing(publisher(directory)) as first,
        closing(publisher(directory)) as second,
        ThreadPoolExecutor() as threads,
    ):
        with first.transaction():
            before = first.lock("v.example").addresses
            done = threads.submit(publish, second, POLICY, b"new", b"v.example", rules.ACCEPTED)
            until(lambda: int(directory.database.sql(WAITING[directory.database.kind]).split()[-1]), "it waits")
            first.add("v.example", [Address("new", rules.ACCEPTED)])
            first.touch_domain("v.example", before + 1)
        assert done.result() == "nothing has changed"
    assert f"v.example|{before + 1}" in directory.rows("domain, addresses", "cvm_domain")
