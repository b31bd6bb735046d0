"""The golden corpus of vpopmail: the systems whose accounts are in a database, against real servers of both kinds.

Deliveries as cvm-vpopmail on some hosts; CORPUS=whole: on all.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import Database
from hosts import load, systems
from serving import CVM_QMAIL, some
from vcorpus import CVM_VPOPMAIL, faults, login_faults

pytestmark = [pytest.mark.root, pytest.mark.peer("mariadbd", "pg_ctlcluster", "setpriv")]

SYSTEMS = [path for path in systems("vpopmail") if load(path)["build"]["backend"] != "cdb"]
UP = [path for path in SYSTEMS if not load(path).get("db_down")]
DOWN = [path for path in SYSTEMS if path not in UP]
DELIVERIES = [path for path in UP if load(path)["cases"]]
LOGINS = [path for path in UP if load(path)["auth_cases"]]


@pytest.fixture
def database(path: Path, request: pytest.FixtureRequest) -> Database:
    """The server for a system."""
    server: Database = request.getfixturevalue({"mysql": "mariadb", "pgsql": "postgresql"}[load(path)["sql"]["engine"]])
    return server


@pytest.mark.parametrize("path", DELIVERIES, ids=lambda path: path.stem)
def test_every_delivery_as_a_plugin_of_cvm_qmail(path: Path, database: Database) -> None:
    assert not faults(path, load(path), CVM_QMAIL, database=database)


@pytest.mark.parametrize("path", some(DELIVERIES, 3, first=1), ids=lambda path: path.stem)
def test_every_delivery_as_a_module_of_its_own(path: Path, database: Database) -> None:
    assert not faults(path, load(path), CVM_VPOPMAIL, module=True, database=database)


@pytest.mark.parametrize("path", LOGINS, ids=lambda path: path.stem)
def test_every_login(path: Path, database: Database) -> None:
    assert not login_faults(path, load(path), database)


@pytest.mark.parametrize("path", DOWN, ids=lambda path: path.stem)
def test_every_delivery_and_login_while_there_is_no_database(path: Path) -> None:
    assert not faults(path, load(path), CVM_QMAIL)
    assert not login_faults(path, load(path))


def test_the_corpus_is_all_there() -> None:
    assert sum(len(load(path)["cases"]) for path in SYSTEMS) == 1886
    assert sum(len(load(path)["auth_cases"]) for path in SYSTEMS) == 201
