"""The corpus of programs: whole hosts, and what the real programs did with each address.

Through real trees and real servers: every verdict as its README demands, and every address again once
its answer may have been cached.  In command mode some hosts; CORPUS=whole: all.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hosts import as_bytes, load, materialise, temporary_directory
from phosts import BRANCHING, SYSTEMS, Case, odd_answer, runs_of
from serving import Server, run, serving, some
from test_corpus import case_domain, verdict

from cvm_qmail.protocols.cvm import packets
from cvm_qmail.protocols.cvm.packets import Credential

pytestmark = pytest.mark.root


def odd_answers(server: Server, system: Mapping[str, Any], cases: list[Case]) -> list[str]:
    """What the server says that it must not, asked twice."""
    said = ((verdict(server.ask(as_bytes(case["local"]), case_domain(case))), case) for case in [*cases, *cases])
    return [what for word, case in said if (what := odd_answer(system, word, case))]


@pytest.mark.parametrize(("path", "branch"), runs_of(SYSTEMS))
def test_every_verdict_is_that_of_the_real_programs(path: Path, branch: str) -> None:
    system = load(path)
    with temporary_directory() as root:
        host = materialise(system, root)
        with serving(host, CVM_QMAIL_BRANCH=branch, CVM_WORKERS="1") as server:
            assert odd_answers(server, system, BRANCHING[branch](system)) == []


@pytest.mark.parametrize(("path", "branch"), runs_of(some(SYSTEMS, 9, first=1)))
def test_command_mode_says_the_same(path: Path, branch: str) -> None:
    system = load(path)
    with temporary_directory() as root:
        host = materialise(system, root)

        def answer(case: Case) -> str:
            given = {Credential.ACCOUNT: as_bytes(case["local"]), Credential.DOMAIN: case_domain(case)}
            credentials = {kind: value for kind, value in given.items() if value is not None}
            request = packets.pack_request(packets.Request(2, b"nonce", credentials))
            done = run(host=host, data=request, CVM_QMAIL_BRANCH=branch)
            return odd_answer(system, verdict(packets.parse_response(done.stdout)), case)

        with ThreadPoolExecutor() as pool:
            assert list(filter(None, pool.map(answer, BRANCHING[branch](system)))) == []


def test_the_corpus_is_all_there() -> None:
    assert len(SYSTEMS) == 35
    assert sum(len(load(path)["cases"]) for path in SYSTEMS) == 1639
