"""Hosts with vpopmail for tests: from a system of the corpus."""

from __future__ import annotations

import base64
import gzip
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cdblib
from hosts import as_bytes, cdb_bytes, give

from cvm_qmail.answer import Recipient
from cvm_qmail.protocols.cvm import packets
from cvm_qmail.protocols.cvm.packets import Fact


class VHost(NamedTuple):
    """A host with qmail and vpopmail below `root`."""

    root: Path
    variables: Mapping[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """What a server needs to look at this host."""
        return {
            "QMAIL_ROOT": str(self.root / "var/qmail"),
            "NSS_WRAPPER_PASSWD": str(self.root / "passwd"),
            "CVM_VPOPMAIL_DIR": str(self.root / "home/vpopmail"),
            "CVM_LOOKUP_SECRET": "",
            **self.variables,
        }

    @property
    def domains(self) -> Path:
        """The directory of the domains' directories."""
        return self.root / "home/vpopmail/domains"


BUILD = {
    "qmail_ext": "CVM_VPOPMAIL_QMAIL_EXT",
    "clear_passwd": "CVM_VPOPMAIL_CLEAR_PASSWORDS",
    "default_delivery": "CVM_VPOPMAIL_DEFAULT_DELIVERY",
    "domain_quotas": "CVM_VPOPMAIL_DOMAIN_QUOTAS",
    "sql_limits": "CVM_VPOPMAIL_SQL_LIMITS",
    "many_domains": "CVM_VPOPMAIL_MANY_DOMAINS",
}


def variables(system: Mapping[str, Any]) -> dict[str, str]:
    """The settings that describe the system's build."""
    build = system["build"]
    given = {name: str(int(build[flag])) for flag, name in BUILD.items() if flag in build}
    return given | {
        "CVM_VPOPMAIL_BACKEND": build["backend"],
        "CVM_VPOPMAIL_VALIAS": build["valias"],
        "CVM_VPOPMAIL_MESSAGE_BYTES": str(system.get("message_bytes") or 1024),
    }


AS_THE_ORIGINALS: dict[str, Any] = {"CVM_VPOPMAIL_DELETE": "accept", "CVM_VPOPMAIL_OVERQUOTA": "reject"}
"""Policies with which ours and vpopmail's answers can be compared."""


def materialise(system: Mapping[str, Any], root: Path, sockets: Mapping[str, str] | None = None) -> VHost:
    """Writes a system of the vpopmail corpus below `root`; `sockets`: where the database servers listen."""

    def placed(text: str) -> bytes:
        for name, path in (sockets or {}).items():
            text = text.replace(name, path)
        return as_bytes(text).replace(b"{root}", os.fsencode(root))

    def path(text: str) -> Path:
        return Path(os.fsdecode(placed(text)))

    def database(entry: Mapping[str, Any]) -> bytes:
        if "records" in entry:
            return cdb_bytes([(placed(key), placed(value)) for key, value in entry["records"]])
        data = base64.b64decode(entry["b64"] if "b64" in entry else entry["gz_b64"])
        return moved(gzip.decompress(data) if "gz_b64" in entry else data)

    def moved(data: bytes) -> bytes:
        """A sound database with this root in the place of the one it was made below."""
        token = system["root_token"].encode()
        if token not in data:
            return data
        try:
            records = list(cdblib.Reader(data).iteritems())
        except (OSError, struct.error, ValueError):
            return data
        return cdb_bytes([(key, value.replace(token, os.fsencode(root))) for key, value in records])

    def put(file: Path, data: bytes, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        give(file, mode, uid, gid)

    qmail = path(system["qmail_dir"])
    for name, text in system["control"].items():
        put(qmail / "control" / name, placed(text))
    if system["users_assign"] is not None:
        put(qmail / "users/assign", placed(system["users_assign"]))
    if system["users_cdb_records"] is not None:
        put(qmail / "users/cdb", cdb_bytes([(placed(k), placed(v)) for k, v in system["users_cdb_records"]]))
    lines = ["{name}:x:{uid}:{uid}::{home}:/bin/true\n".format(**account) for account in system["passwd"]]
    lines += ["qmailp:x:7793:2108::{root}:/bin/true\n", "qmails:x:7796:2107::{root}:/bin/true\n"]
    put(root / "passwd", placed("".join(lines)))
    for entry in system["dirs"]:
        path(entry["path"]).mkdir(parents=True, exist_ok=True)
    for entry in system["files"]:
        data = placed(entry["text"]) if "text" in entry else database(entry)
        put(path(entry["path"]), data, int(entry["mode"], 8), entry["uid"], entry["gid"])
    for entry in system["links"]:
        link = path(entry["path"])
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path(entry["symlink"]))
    for entry in reversed(system["dirs"]):
        give(path(entry["path"]), int(entry["mode"], 8), entry["uid"], entry["gid"])
    return VHost(root, variables(system))


def recipient(case: Mapping[str, Any]) -> Recipient:
    """The address of a case; a domain that is empty is none."""
    return Recipient(as_bytes(case["local"]), as_bytes(case["domain"]) or None)


def outcome(response: packets.Response) -> str:
    """A response in the words of the corpus; bounces of all kinds are one."""
    if response.code == 0:
        return "deliver"
    if response.code == 100:
        return {b"0": "bounce", b"1": "remote"}[dict(response.facts)[Fact.OUTOFSCOPE]]
    assert not response.facts, "a temporary failure carries no facts"
    return "defer"


EXPECTED = {"delete": "deliver", "no-mailbox": "bounce"}
"""Outcomes of the corpus that are one for a client."""


def welcome(system: str, case: Mapping[str, Any], got: str) -> bool:
    """Whether `got` is what the original did, or a better answer (see the corpus's README)."""
    expected = EXPECTED.get(case["expect"], case["expect"])
    if got == expected:
        return True
    if system in ("damage", "pgsql-down") and got == "defer":
        return expected in ("bounce", "deliver") and (expected == "bounce" or case["expect"] == "delete")
    if system == "mysql-per-domain" and case["domain"] == "lost.example":
        return got == "defer"
    if system == "programs":
        return got == "deliver"  # what a program will say cannot be known without running it
    return (
        system == "domains-routing"
        and (case["local"], case["domain"]) == ("special-person", "mail.test.example")
        and got == "deliver"
    )
