"""What `cvmctl status` and the metrics say of real databases and of the files of accounts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from calling import called
from databases import NAME, PASSWORD, Database, SqlHost
from hosts import temporary_directory
from scraping import complaints
from serving import Server, environment, serving, until
from sql_load import ask, serving_sql
from vcorpus import CVM_VPOPMAIL
from vdomains import vpopmail_host

pytestmark = [pytest.mark.root, pytest.mark.peer("mariadbd", "pg_ctlcluster", "setpriv", "promtool")]


def cvmctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return called(*arguments, env=environment(None, {}))


def backends(server: Server) -> dict[str, Any]:
    """What `cvmctl status --json` knows of each."""
    found = json.loads(cvmctl("status", str(server.path), "--json").stdout)
    return {backend["name"]: backend for backend in found["backends"]}


def asked_until(server: Server, code: int, condition: Callable[[], Any]) -> None:
    """Asks about bob until it is so, and the answer is this one."""
    until(lambda: ask(server, "bob").code == code and condition())


def test_a_database_that_is_stopped_and_started_again(host: SqlHost) -> None:
    with serving_sql(host) as server:
        (name,) = until(lambda: backends(server))
        assert backends(server)[name]["state"] == "not asked"
        assert "cvm_backend_up{" not in cvmctl("metrics", str(server.path)).stdout
        asked_until(server, 0, lambda: backends(server)[name]["state"] == "up")
        well = until(lambda: (done := cvmctl("status", str(server.path))).returncode == 0 and done)
        assert f"{name}: up since" in well.stdout
        up = f'cvm_backend_up{{address="{server.path}",backend="{name}"}}'
        assert f"{up} 1\n" in cvmctl("metrics", str(server.path)).stdout

        host.database.kill()
        asked_until(server, 4, lambda: backends(server)[name]["state"] == "down")
        found = backends(server)[name]
        assert found["error"] == "database-down"
        assert found["since"] <= found["failed"] <= found["seen"]
        degraded = cvmctl("status", str(server.path))
        assert degraded.returncode == 1
        assert f"{name} down since" in degraded.stdout
        assert "last error database-down" in degraded.stdout
        metrics = cvmctl("metrics", str(server.path)).stdout
        assert f"{up} 0\n" in metrics
        assert complaints(metrics) == ""

        host.database.start()
        asked_until(server, 0, lambda: backends(server)[name]["state"] == "up")
        again = backends(server)[name]
        assert again["since"] > found["since"], (found, again)
        assert again["error"] == "database-down"
        assert cvmctl("status", str(server.path)).returncode == 0


def test_one_that_refuses_and_no_password_anywhere(host: SqlHost) -> None:
    host.use(password=f"not-{PASSWORD}")
    with serving_sql(host) as server:
        (name,) = until(lambda: backends(server))
        asked_until(server, 4, lambda: backends(server)[name]["state"] == "refused")
        done = cvmctl("status", str(server.path))
        assert done.returncode == 1
        assert f"{name} refused since" in done.stdout
        assert PASSWORD.encode() not in server.path.with_name(f"{server.path.name}.stats").read_bytes()
        host.use()
        asked_until(server, 0, lambda: backends(server)[name]["state"] == "up")


def again(database: Database) -> None:
    """Rights count for new connections to MariaDB only."""
    database.kill()
    database.start()


def test_a_right_to_read_that_is_taken_away_and_given_back(host: SqlHost) -> None:
    users = {"mysql": f"ON {NAME}.* {{}} vpopmail@'%'", "pgsql": "ON vpopmail {} postgres"}
    user = users[host.database.kind]
    with serving_sql(host, CVM_VPOPMAIL_VALIAS="files", CVM_VPOPMAIL_SQL_LIMITS="0", CVM_WORKERS="1") as server:
        (name,) = until(lambda: backends(server))
        assert ask(server, "bob").right
        host.database.sql(f"REVOKE SELECT {user.format('FROM')};", NAME)
        again(host.database)
        asked_until(server, 4, lambda: backends(server)[name]["state"] == "refused")
        assert backends(server)[name]["error"] == "database-refused"
        host.database.sql(f"GRANT SELECT {user.format('TO')};", NAME)
        again(host.database)
        asked_until(server, 0, lambda: backends(server)[name]["state"] == "up")


def test_a_file_of_servers_that_is_gone(host: SqlHost) -> None:
    with serving_sql(host) as server:
        (name,) = until(lambda: backends(server))
        away = host.credentials.rename(host.credentials.with_name("away"))
        host.database.kill()
        asked_until(server, 6, lambda: str(host.credentials) in backends(server))
        assert backends(server)[str(host.credentials)]["error"] == "database-settings"
        away.rename(host.credentials)
        host.database.start()
        asked_until(server, 0, lambda: list(backends(server)) == [name])


def test_files_of_accounts() -> None:
    with temporary_directory() as root:
        host = vpopmail_host(root)
        host.accounts("example.com", "bob")
        with serving(host, program=CVM_VPOPMAIL, CVM_WORKERS="1") as server:
            asked_until(server, 0, lambda: [one["state"] for one in backends(server).values()] == ["up"])
            for file in ("vpasswd", "vpasswd.cdb"):
                host.at(f"example.com/{file}").rename(host.at(f"example.com/not-{file}"))
            name = f"cdb:{host.at('example.com')}"
            asked_until(server, 4, lambda: backends(server).get(name))
            assert backends(server)[name]["error"] == "accounts-gone"
            assert cvmctl("status", str(server.path)).returncode == 1
            for file in ("vpasswd", "vpasswd.cdb"):
                host.at(f"example.com/not-{file}").rename(host.at(f"example.com/{file}"))
            asked_until(server, 0, lambda: backends(server)[name]["state"] == "up")
            assert cvmctl("status", str(server.path)).returncode == 0
