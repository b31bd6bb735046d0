"""The golden corpus: whole hosts, and what the real qmail did with each address.

100 % of verdicts, scopes and facts, through a real tree and the real server.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hosts import Host, a_folder, as_bytes, load, materialise, systems
from serving import Server, run, serving

from cvm_qmail import wire
from cvm_qmail.wire import Credential, Fact

pytestmark = pytest.mark.root

SYSTEMS = systems("qmail")


def case_domain(case: Mapping[str, Any]) -> bytes | None:
    return None if case["domain"] is None else as_bytes(case["domain"])


def verdict(response: wire.Response) -> str:
    """The corpus's word for a response."""
    if response.code == 0:
        return "deliver"
    if response.code == 100:
        return {b"0": "no-mailbox", b"1": "remote"}[dict(response.facts)[Fact.OUTOFSCOPE]]
    assert not response.facts, "a temporary failure carries no facts"
    return "defer"


def expected_facts(host: Host, case: Mapping[str, Any]) -> dict[int, bytes]:
    """The facts of an acceptance, from what qmail told of its delivery."""
    detail = case["detail"]
    if "user" not in detail:  # an empty local part: taken and thrown away; alias lends its facts
        user, uid, gid, home = b"alias", b"5090", b"5099", f"{host.root}/alias".encode()
    else:
        user, uid, gid = as_bytes(detail["user"]), b"%d" % detail["uid"], b"%d" % detail["gid"]
        home = as_bytes(detail["home"].replace("{root}", str(host.root)))
    domain = case["domain"]
    if domain is None:  # envnoathost, before any percenthack
        files = [(host.root / "control" / name) for name in ("envnoathost", "me")]
        lines = [file.read_text().split("\n")[0].rstrip() for file in files if file.exists()]
        domain = [*lines, "envnoathost"][0]
    return {
        Fact.USERNAME: user,
        Fact.USERID: uid,
        Fact.GROUPID: gid,
        Fact.DIRECTORY: home,
        Fact.SYS_USERNAME: user,
        Fact.SYS_DIRECTORY: home,
        Fact.DOMAIN: as_bytes(domain).lower(),
        Fact.MAILBOX: home,
    }


def wrong(host: Host, case: Mapping[str, Any], response: wire.Response) -> str:
    """What is wrong with the response; empty: nothing."""
    said = verdict(response)
    address = f"{case['local']!r} at {case['domain']!r}"
    if said != case["expect"]:
        return f"{address}: {said}, expected {case['expect']} ({case['why']})"
    if said == "deliver" and dict(response.facts) != (expected := expected_facts(host, case)):
        return f"{address}: {dict(response.facts)}, expected {expected}"
    return ""


def answers(server: Server, cases: list[Mapping[str, Any]]) -> list[wire.Response]:
    return [server.ask(as_bytes(case["local"]), case_domain(case)) for case in cases]


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp"])
def test_every_verdict_scope_and_fact_is_qmails(path: Path, scheme: str) -> None:
    system = load(path)
    with a_folder() as root:
        host = materialise(system, root)
        with serving(host, scheme=scheme) as server:
            responses = answers(server, system["cases"])
        faults = [wrong(host, case, response) for case, response in zip(system["cases"], responses, strict=True)]
    assert not list(filter(None, faults))


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
def test_command_mode_says_the_same(path: Path) -> None:
    system = load(path)
    cases = system["cases"]
    with a_folder() as root:
        host = materialise(system, root)

        def answer(case: Mapping[str, Any]) -> wire.Response:
            given = {Credential.ACCOUNT: as_bytes(case["local"]), Credential.DOMAIN: case_domain(case)}
            credentials = {kind: value for kind, value in given.items() if value is not None}
            done = run(host=host, data=wire.pack_request(wire.Request(2, b"nonce", credentials)))
            response = wire.parse_response(done.stdout)
            assert (done.returncode, response.nonce) == (response.code, b"nonce")
            return response

        with ThreadPoolExecutor() as pool:
            faults = [
                wrong(host, case, response) for case, response in zip(cases, pool.map(answer, cases), strict=True)
            ]
    assert not list(filter(None, faults))


def test_the_corpus_is_all_there() -> None:
    assert len(SYSTEMS) == 83
    assert sum(len(load(path)["cases"]) for path in SYSTEMS) == 1878
