"""docs/vpopmail-sql.md: the rights that it says are enough."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from databases import NAME, SqlHost
from serving import serving
from vcorpus import CVM_VPOPMAIL

pytestmark = [pytest.mark.root, pytest.mark.peer("mariadbd", "pg_ctlcluster", "setpriv")]

PAGE = (Path(__file__).parents[2] / "docs/vpopmail-sql.md").read_text()


def test_the_rights_of_the_page_are_enough(host: SqlHost) -> None:
    kind = host.database.kind
    (statements,) = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    file = host.vhost.root / "database"
    file.write_text(f"{host.database.place}|cvm|secret|{NAME}\n")
    file.chmod(0o600)
    host.database.sql(statements, NAME)
    try:
        with serving(host, program=CVM_VPOPMAIL, CVM_VPOPMAIL_SQL_FILE=str(file)) as server:
            answers = [server.ask(name, "example.com").code for name in ("bob", "sales", "nobody")]
            assert answers == [0, 0, 100], server.errors.read_text()
    finally:
        gone = {"mysql": "DROP USER cvm;", "pgsql": "DROP OWNED BY cvm; DROP ROLE cvm;"}[kind]
        host.database.sql(gone, NAME)


def test_every_word_of_the_page_is_one_that_is_given() -> None:
    sources = Path(__file__).parents[2] / "cvm_vpopmail"
    given = {word for path in sources.rglob("*.py") for word in re.findall(r'"(database-[a-z]+)"', path.read_text())}
    assert set(re.findall(r"^\| `(database-[a-z]+)` \|", PAGE, re.MULTILINE)) == given
