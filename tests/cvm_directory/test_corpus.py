"""Every address of the corpora: what cvm-directory says, and what the server of the host says that was published.

Each host is published by `cvmctl publish`, temporary failures included; then both servers are asked.  Where they
differ, the difference has a name below, with the number of addresses over all corpora.  CORPUS=whole: all hosts, else
some.

Invariant: what its host accepts, and what it calls a temporary failure, is never rejected by the directory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import hosts
import pytest
import vhosts
from directories import NAME, Directory, made
from hosts import as_bytes, load, systems, temporary_directory
from serving import CVM_QMAIL, WHOLE, Server, serving
from vcorpus import made as made_vhost

from cvm_qmail.protocols.cvm.packets import Credential, Fact

pytestmark = [pytest.mark.root, pytest.mark.peer("mariadbd", "pg_ctlcluster", "setpriv")]

CVM_DIRECTORY = CVM_QMAIL.with_name("cvm-directory")
CORPORA = {"qmail": {"CVM_QMAIL_PROGRAMS": "vpopmail"}, "vpopmail": {}, "programs": {}}
"""With the settings of their hosts."""
SOME = {"qmail": 12, "vpopmail": 9, "programs": 9}
"""Of so many hosts one is asked, where not all are."""

HOSTS = [(corpus, path) for corpus in CORPORA for path in systems(corpus)[:: 1 if WHOLE else SOME[corpus]]]

ACCEPTED, REJECTED, OUT_OF_SCOPE, TEMPORARY = "accepted", "rejected", "out of scope", "temporary failure"

DIFFERENCES = {
    "no domain": 92,
    "the mailbox is full": 20,
    "nothing can be published": 134,
    "a temporary failure below a pattern that is none": 10,
    "a pattern that is a temporary failure": 75,
    "a pattern of which a program judges each address": 98,
}
"""What the two may differ in, and on how many of the addresses of all hosts they do."""


class Said(NamedTuple):
    """What a server said of an address."""

    verdict: str
    reason: str


def asked(server: Server, case: Mapping[str, Any], corpus: str) -> Said:
    """A server's answer, with its reason."""
    domain = None if case["domain"] is None else as_bytes(case["domain"])
    if corpus == "vpopmail":
        domain = domain or None  # see vhosts.recipient
    response = server.ask(as_bytes(case["local"]), domain, more={Credential.REASON: b""})
    facts = dict(response.facts)
    reason = facts.get(Fact.REASON, b"").decode()
    if response.code == 0:
        return Said(ACCEPTED, reason)
    if response.code == 100:
        return Said({b"0": REJECTED, b"1": OUT_OF_SCOPE}[facts[Fact.OUTOFSCOPE]], reason)
    return Said(TEMPORARY, reason)


def difference(case: Mapping[str, Any], host: Said, directory: Said, *, published: bool) -> str:
    """The name of what they differ in; empty: there is none that may be."""
    if case["domain"] is None or (case["domain"] == "" and directory.reason == "unpublished-domain"):
        return "no domain" if directory.verdict == OUT_OF_SCOPE else ""
    if not published:
        return "nothing can be published" if directory.reason == "unpublished-domain" else ""
    if host.reason in ("over-quota", "quota-count"):
        return "the mailbox is full" if directory.verdict == ACCEPTED else ""
    if directory.reason == "published-unknown":
        return "a pattern that is a temporary failure"
    if directory.reason not in ("published-pattern", "published-doubt"):
        return ""
    if host.verdict == TEMPORARY:
        return "a temporary failure below a pattern that is none"
    return "a pattern of which a program judges each address" if host.verdict == REJECTED else ""


@pytest.fixture(scope="module")
def places(request: pytest.FixtureRequest) -> Iterator[dict[str, tuple[Directory, Server]]]:
    """A directory in each kind of database, and cvm-directory over it."""
    with ExitStack() as stack:
        found = {}
        for name in ("mariadb", "postgresql"):
            directory = stack.enter_context(made(request.getfixturevalue(name)))
            host = vhosts.VHost(Path("/nonexistent"), directory.environment("reader", CVM_DIRECTORY_MAX_AGE="0"))
            found[name] = (
                directory,
                stack.enter_context(serving(host, program=CVM_DIRECTORY, QMAIL_ROOT="/nonexistent")),
            )
        yield found


@pytest.fixture(scope="module")
def found() -> Counter[str]:
    """How often each difference was found."""
    return Counter()


@pytest.mark.parametrize("number", range(len(HOSTS)), ids=lambda number: f"{HOSTS[number][0]}-{HOSTS[number][1].stem}")
def test_the_directory_says_what_its_host_says(
    number: int,
    places: dict[str, tuple[Directory, Server]],
    found: Counter[str],
    request: pytest.FixtureRequest,
) -> None:
    corpus, path = HOSTS[number]
    directory, server = places[sorted(places)[number % 2]]
    system = load(path)
    directory.database.sql("DELETE FROM cvm_address; DELETE FROM cvm_domain;", NAME)
    with temporary_directory() as root:
        host = materialised(corpus, path, system, root, request)
        said = directory.publish(host.environment, "--unknown", "include", "--force", name=path.stem, **CORPORA[corpus])
        assert said.returncode in (0, 111), said
        unexplained = []
        with serving(host, **CORPORA[corpus]) as own:
            for case in system["cases"]:
                found["addresses"] += 1
                one, other = asked(own, case, corpus), asked(server, case, corpus)
                if one.verdict == other.verdict:
                    found["the same"] += 1
                    continue
                name = difference(case, one, other, published=said.returncode == 0)
                found[name] += 1
                if not name:
                    unexplained.append((case["local"], case["domain"], one, other))
    assert unexplained == []


def materialised(
    corpus: str, path: Path, system: Mapping[str, Any], root: Path, request: pytest.FixtureRequest
) -> hosts.Host | vhosts.VHost:
    """A host of a corpus, with its own database if it has one."""
    if corpus != "vpopmail":
        return hosts.materialise(system, root)
    database = None
    if system["build"]["backend"] != "cdb" and not system.get("db_down"):
        database = request.getfixturevalue({"mysql": "mariadb", "pgsql": "postgresql"}[system["sql"]["engine"]])
    return made_vhost(path, dict(system), root, database)


def test_the_differences_are_those_that_are_known(found: Counter[str]) -> None:
    """And as many, over all hosts."""
    differences = {name: number for name, number in found.items() if name not in ("addresses", "the same")}
    assert set(differences) <= set(DIFFERENCES)
    assert found["addresses"] == found["the same"] + sum(differences.values())
    if WHOLE:
        assert differences == DIFFERENCES
        assert found["addresses"] == 7084
    else:
        assert found["the same"] > found["addresses"] * 0.8
