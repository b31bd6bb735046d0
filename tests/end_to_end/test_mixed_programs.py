"""Files with lines of vdelivermail and of other programs: the first line that decides, decides."""

from __future__ import annotations

import pytest
from hosts import temporary_directory
from phosts import table
from serving import CVM_QMAIL, serving
from vdomains import UID, vpopmail_host

pytestmark = pytest.mark.root

YES, NO, TEMPORARY = 0, 100, 4
DD = "example.com"
BOUNCE = "|vdelivermail '' bounce-no-mailbox\n"
TABLE = table({b":listed@example.com": b"&ann@x.example\0"})


@pytest.mark.parametrize("program", ["cvm-qmail", "cvm-vpopmail"])
@pytest.mark.parametrize(
    ("lines", "expected", "branch"),
    [
        (BOUNCE, (YES, NO, NO), "0"),
        ("|fastforward -dp t.cdb\n" + BOUNCE, (YES, YES, NO), "0"),
        ("|fastforward -d t.cdb\n" + BOUNCE, (NO, NO, NO), "0"),
        (BOUNCE + "|fastforward -d t.cdb\n", (NO, NO, NO), "0"),
        ("|fastforward -dp none.cdb\n" + BOUNCE, (TEMPORARY, TEMPORARY, TEMPORARY), "0"),
        (BOUNCE + "|fastforward -dp none.cdb\n", (TEMPORARY, NO, NO), "0"),
        ("|bouncesaying gone\n" + BOUNCE, (NO, NO, NO), "0"),
        ("|false\n" + BOUNCE, (TEMPORARY, TEMPORARY, TEMPORARY), "0"),
        ("|/usr/bin/unknown\n" + BOUNCE, (YES, NO, NO), "0"),
        ("?a fastforward -dp t.cdb\n" + BOUNCE + ":a\n", (YES, YES, NO), "1"),
        ("?a vdelivermail '' bounce-no-mailbox\n", (YES, NO, NO), "1"),
        ("?a\n|exit 100\n:a\n" + BOUNCE, (YES, NO, NO), "1"),
        ("?a exit 99\n:b\n" + BOUNCE, (YES, YES, YES), "1"),
        ("?a exit 100\n" + BOUNCE, (YES, NO, NO), "0"),
    ],
)
def test_the_first_line_that_decides_decides(
    program: str, lines: str, expected: tuple[int, int, int], branch: str
) -> None:
    """What is said of an account, of a target of the table, and of a name that nobody has."""
    with temporary_directory() as directory:
        host = vpopmail_host(directory)
        host.put(f"{DD}/.qmail-default", lines)
        host.put(f"{DD}/t.cdb", TABLE, UID)
        command = CVM_QMAIL.with_name(program)
        with serving(host, program=command, CVM_QMAIL_BRANCH=branch, CVM_WORKERS="1") as server:
            assert tuple(server.ask(name, DD).code for name in ("bob", "listed", "nobody")) == expected
