"""The golden corpus of vpopmail against a server: what is wrong about its answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hosts import temporary_directory
from serving import CVM_QMAIL, serving
from vhosts import AS_THE_ORIGINALS, VHost, materialise, outcome, recipient, welcome

from cvm_qmail.protocols.cvm import client
from cvm_qmail.protocols.cvm.packets import Credential

if TYPE_CHECKING:
    from databases import Database

CVM_VPOPMAIL = CVM_QMAIL.with_name("cvm-vpopmail")


def made(path: Path, system: dict[str, Any], root: Path, database: Database | None) -> VHost:
    """The system below `root`, and its tables in `database`."""
    if database is None:
        return materialise(system, root)
    database.fill(path.with_name(system["sql"]["file"]), root)
    return materialise(system, root, database.placeholders)


def faults(
    path: Path,
    system: dict[str, Any],
    program: Path,
    *,
    module: bool = False,
    database: Database | None = None,
    as_service: bool = False,
) -> list[str]:
    """What is wrong about the answers to the system's recipients.  `as_service`: see `serving`."""
    found = []
    with temporary_directory() as root:
        host = made(path, system, root, database)
        with serving(host, program=program, as_service=as_service, **AS_THE_ORIGINALS) as server:
            for case in system["cases"]:
                got = outcome(server.ask(*recipient(case)))
                if module and got == "remote" and not is_ours(system, case):
                    continue
                if not welcome(path.stem, case, got):
                    found.append(f"{case['local']}@{case['domain']}: {got}, expected {case['expect']}")
            log = server.log.read_text()
    assert "internal-error" not in log, log
    assert "the sandbox refused" not in log, log
    return found


def is_ours(system: dict[str, Any], case: dict[str, Any]) -> bool:
    """Whether the address is virtual, not local, and its user is in users/assign as a vpopmail domain."""
    if case["domain"] in system["control"]["locals"].splitlines():
        return False
    lines = (line.partition(":") for line in system["control"].get("virtualdomains", "").splitlines())
    virtual = {domain.lower(): user for domain, _, user in lines}
    user = virtual.get(case["domain"].lower())
    return user is not None and f"+{user.lower()}-:" in (system["users_assign"] or "").lower()


def login_faults(
    path: Path, system: dict[str, Any], database: Database | None = None, *, as_service: bool = False
) -> list[str]:
    """What is wrong about the answers to its logins.  `as_service`: see `serving`."""
    found = []
    with temporary_directory() as root:
        host = made(path, system, root, database)
        kinds = {(case["service"], tuple(sorted(case.get("env", {}).items()))) for case in system["auth_cases"]}
        for service, env in sorted(kinds):
            more: dict[str, Any] = {**dict(env), "CVM_VPOPMAIL_SERVICE": service, "CVM_LOOKUP_SECRET": None}
            with serving(host, program=CVM_VPOPMAIL, as_service=as_service, **more) as server:
                for case in system["auth_cases"]:
                    if (case["service"], tuple(sorted(case.get("env", {}).items()))) == (service, env):
                        fault = login_fault(path.stem, server.module, case)
                        if fault:
                            found.append(fault)
                log = server.log.read_text() + server.errors.read_text()
            assert "internal-error" not in log, log
            secrets = {case[name] for case in system["auth_cases"] for name in ("password", "response") if name in case}
            assert not [secret for secret in secrets if len(secret) > 8 and secret in log]
    return found


def login_fault(system: str, module: str, case: dict[str, Any]) -> str:
    """What is wrong about the answer to a login; empty: nothing."""
    proof = {Credential.PASSWORD: case["password"].encode()}
    if "challenge" in case:
        proof = {
            Credential.CHALLENGE: case["challenge"].encode(),
            Credential.RESPONSE: case["response"].encode(),
            Credential.RESPONSE_TYPE: b"APOP" if case["service"] == "pop3" else b"CRAM-MD5",
        }
    response = client.ask(module, case["login"].encode(), None, more=proof)
    got = {0: "ok", 100: "reject"}.get(response.code, "defer")
    if got == case["expect"] or _better(system, case, got):
        return ""
    return f"{case['login']} on {case['service']}: {got} ({response.code}), expected {case['expect']} {case}"


def _better(system: str, case: dict[str, Any], got: str) -> bool:
    """Whether this answer is better than the original's: see the corpus's README."""
    if system == "damage":
        return got == "defer" and case["expect"] == "reject"
    if system == "logins":
        return got == "ok" and len(case["login"]) + len(case["password"]) > 150
    if system in ("mysql-down", "pgsql-down"):
        return got == "defer"
    if case["login"].startswith("orphan@"):
        return got == "reject"
    if system in ("clear-text", "mysql-clear"):
        return got == "reject" and case.get("challenge") == ""
    # that build stores the first password it is offered, and accepts it; this server never writes
    return system == "learn-passwords" and got == "reject" and case["account"].startswith("new")
