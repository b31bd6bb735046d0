"""The golden corpus: whole hosts, and what the real qmail did with each address.

100 % of verdicts, scopes and facts, through a real tree and the real server, on its Unix socket.  By UDP, in command
mode, and as the service's own user it says the same, on some hosts each; CORPUS=whole: on all.

Its verdicts say whether qmail finds the address; what the instructions of a .qmail file do is no part of
them, so the plug-ins for programs are off.  What they add is asked apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hosts import Host, as_bytes, load, materialise, systems, temporary_directory
from serving import Server, run, serving, some

from cvm_qmail.protocols.cvm import packets
from cvm_qmail.protocols.cvm.packets import Credential, Fact

pytestmark = pytest.mark.root

SYSTEMS = systems("qmail")
ALONE = {"CVM_QMAIL_PROGRAMS": "vpopmail"}


def case_domain(case: Mapping[str, Any]) -> bytes | None:
    return None if case["domain"] is None else as_bytes(case["domain"])


def verdict(response: packets.Response) -> str:
    """The corpus's word for a response."""
    if response.code == 0:
        return "deliver"
    if response.code == 100:
        return {b"0": "no-mailbox", b"1": "remote"}[dict(response.facts)[Fact.OUTOFSCOPE]]
    assert not response.facts, "a temporary failure carries no facts"
    return "defer"


def expected_facts(host: Host, case: Mapping[str, Any]) -> dict[int, bytes]:
    """The facts of an acceptance, from what qmail reported of its delivery."""
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


def wrong(host: Host, case: Mapping[str, Any], response: packets.Response) -> str:
    """What is wrong with the response; empty: nothing."""
    said = verdict(response)
    address = f"{case['local']!r} at {case['domain']!r}"
    if said != case["expect"]:
        return f"{address}: {said}, expected {case['expect']} ({case['why']})"
    if said == "deliver" and dict(response.facts) != (expected := expected_facts(host, case)):
        return f"{address}: {dict(response.facts)}, expected {expected}"
    return ""


def answers(server: Server, cases: list[Mapping[str, Any]]) -> list[packets.Response]:
    return [server.ask(as_bytes(case["local"]), case_domain(case)) for case in cases]


def faults(path: Path, scheme: str) -> list[str]:
    """What is wrong about the answers to the system's addresses."""
    system = load(path)
    with temporary_directory() as root:
        host = materialise(system, root)
        with serving(host, scheme=scheme, **ALONE) as server:
            responses = answers(server, system["cases"])
        found = [wrong(host, case, response) for case, response in zip(system["cases"], responses, strict=True)]
    return list(filter(None, found))


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
def test_every_verdict_scope_and_fact_is_qmails(path: Path) -> None:
    assert not faults(path, "cvm-local")


@pytest.mark.parametrize("path", some(SYSTEMS, 6, first=3), ids=lambda path: path.stem)
def test_by_udp_it_says_the_same(path: Path) -> None:
    assert not faults(path, "cvm-udp")


@pytest.mark.peer("setpriv")
@pytest.mark.parametrize("path", some(SYSTEMS, 6), ids=lambda path: path.stem)
def test_the_services_own_user_with_three_capabilities_judges_as_root_does(path: Path) -> None:
    """In the sandbox that it must have."""
    system = load(path)
    with temporary_directory() as root:
        host = materialise(system, root)
        with serving(host, as_service=True, **ALONE) as server:
            responses = answers(server, system["cases"])
            log = server.log.read_text() + server.errors.read_text()
        faults = [wrong(host, case, response) for case, response in zip(system["cases"], responses, strict=True)]
    assert not list(filter(None, faults))
    assert "sandbox" not in log


@pytest.mark.parametrize("path", some(SYSTEMS, 12, first=5), ids=lambda path: path.stem)
def test_command_mode_says_the_same(path: Path) -> None:
    system = load(path)
    cases = system["cases"]
    with temporary_directory() as root:
        host = materialise(system, root)

        def answer(case: Mapping[str, Any]) -> packets.Response:
            given = {Credential.ACCOUNT: as_bytes(case["local"]), Credential.DOMAIN: case_domain(case)}
            credentials = {kind: value for kind, value in given.items() if value is not None}
            done = run(host=host, **ALONE, data=packets.pack_request(packets.Request(2, b"nonce", credentials)))
            response = packets.parse_response(done.stdout)
            assert (done.returncode, response.nonce) == (response.code, b"nonce")
            return response

        with ThreadPoolExecutor() as pool:
            faults = [
                wrong(host, case, response) for case, response in zip(cases, pool.map(answer, cases), strict=True)
            ]
    assert not list(filter(None, faults))


def test_with_the_plug_ins_for_programs_the_fate_of_the_message_counts() -> None:
    """K, Z, D: what qmail-local did with a message, by the recorded exit code of each program line."""
    (path,) = [path for path in SYSTEMS if path.stem == "dotqmail-contents"]
    system = load(path)
    cases = [case for case in system["cases"] if case["local"].startswith("joe-prog")]
    fates = {"K": "deliver", "Z": "defer", "D": "no-mailbox"}
    with temporary_directory() as root, serving(materialise(system, root)) as server:
        said = {case["local"]: verdict(response) for case, response in zip(cases, answers(server, cases), strict=True)}
    assert said == {case["local"]: fates[case["detail"]["delivery"]] for case in cases}
    assert len(set(said.values())) == 3


def test_the_corpus_is_all_there() -> None:
    assert len(SYSTEMS) == 83
    assert sum(len(load(path)["cases"]) for path in SYSTEMS) == 1878
