"""vpopmail hosts in memory: a `Disk`, and the plug-in's rules with tables of dicts.

`from_corpus` makes a system of the vpopmail corpus out of it, users/cdb and accounts as dicts.
"""

from __future__ import annotations

import base64
import gzip
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import cdblib
from disk import NOW, Asking, Disk
from hosts import as_bytes
from memory import Memory, tables
from vhosts import AS_THE_ORIGINALS, variables

from cvm_qmail.answer import Answer, Table, Unavailable
from cvm_qmail.plugin import Delivery, Lookup, Plugin, Program
from cvm_qmail.qmail import qmail
from cvm_qmail.rules.users import Account as SystemUser
from cvm_qmail.settings import Settings
from cvm_qmail.tables.control import parse as parse_controls
from cvm_qmail.tables.rights import Rights
from cvm_vpopmail.accounts import Account, Domain
from cvm_vpopmail.rules import delivery as rules
from cvm_vpopmail.rules import limits
from cvm_vpopmail.rules.limits import Limits
from cvm_vpopmail.rules.vdelivermail import Places
from cvm_vpopmail.settings import Vpopmail
from cvm_vpopmail.vpasswd import parse

# -- the plug-in on dicts -----------------------------------------------------------------------------

Accounts = Callable[[Rights], Table[tuple[Domain, bytes], Account]]


class VMemory(NamedTuple):
    """One host: what its tables say."""

    qmail: Memory
    disk: Disk
    domains: Table[bytes, Domain]
    accounts: Accounts
    """As who looks at the domain's files."""
    limits: Table[Domain, Limits]
    policy: Vpopmail
    qmail_root: bytes

    def program(self) -> Program:
        """The plug-in."""

        def program(delivery: Delivery) -> Answer | None:
            rights = Rights(delivery.user.uid, delivery.user.gid)
            places = Places(
                self.domains,
                self.accounts(rights),
                None,
                self.limits,
                self.disk.seen_by(rights),
                rights.uid,
                self.qmail_root,
                lambda: float(NOW),
            )
            outcome = rules.judge(delivery, places, self.policy)
            return None if outcome is None else outcome.answer

        return program

    def lookup(self) -> Lookup:
        """cvm-qmail's lookup on this host, with the plug-in."""
        return qmail(tables(self.qmail), Settings.from_environment({}), [Plugin(self.program())]).lookup


# -- the corpus ---------------------------------------------------------------------------------------

ROOT = b"/root-of-the-corpus"
QMAILP = Rights(7793, 2108)


class Databases(NamedTuple):
    """The vpasswd.cdb files of a host, by path.  One that is None is damaged: nothing can be determined of it."""

    records: Mapping[bytes, Mapping[bytes, bytes] | None]
    disk: Disk
    clear: bool

    def seen_by(self, rights: Rights) -> Table[tuple[Domain, bytes], Account]:
        """The accounts, as somebody finds them who has these rights."""

        def get(key: Any) -> Account | None:
            domain, name = key
            value = self._value(domain.directory, name, rights) if name else None
            return None if value is None else parse(name, value, clear=self.clear)

        return Asking(get)

    def _value(self, directory: bytes, name: bytes, rights: Rights) -> bytes | None:
        """The cdb decides; where it cannot be opened, the first line of the name in vpasswd."""
        try:
            path, node = self.disk.find(directory + b"/vpasswd.cdb", rights)
        except OSError:
            return self._line(directory, name, rights)
        if not node.grants(rights, 4):
            return self._line(directory, name, rights)
        records = self.records.get(path)
        if records is None:
            raise Unavailable("cdb-damaged", "is not a whole constant database", path)
        return records.get(name)

    def _line(self, directory: bytes, name: bytes, rights: Rights) -> bytes | None:
        text = self.disk.seen_by(rights).file(directory + b"/vpasswd") or b""
        for line in text.split(b"\n"):
            if line.startswith(name + b":"):
                return line[len(name) + 1 :]
        return None


def from_corpus(system: Mapping[str, Any]) -> VMemory:
    """A system of the corpus."""
    policy = policy_of(**variables(system), **AS_THE_ORIGINALS)
    disk = Disk()
    databases: dict[bytes, dict[bytes, bytes] | None] = {}
    for entry in system["dirs"]:
        disk.directory(_placed(entry["path"]), mode=int(entry["mode"], 8), uid=entry["uid"], gid=entry["gid"])
    for entry in system["files"]:
        path = _placed(entry["path"])
        content = _placed(entry["text"]) if "text" in entry else _binary(system, entry)
        if path.endswith(b"/vpasswd.cdb"):
            databases[path] = _records(system, entry)
        disk.file(path, content, mode=int(entry["mode"], 8), uid=entry["uid"], gid=entry["gid"])
    for entry in system["links"]:
        disk.link(_placed(entry["path"]), _placed(entry["symlink"]))

    names = ("me", "envnoathost", "locals", "percenthack", "virtualdomains")
    control = system["control"]
    users = system["users_cdb_records"]
    users_cdb = None if users is None else _first_of_each([(_placed(key), _placed(value)) for key, value in users])
    people = {as_bytes(p["name"]): SystemUser(p["uid"], p["gid"], _placed(p["home"])) for p in system["passwd"]}
    qmail_host = Memory(
        parse_controls(*(_placed(control[name]) if name in control else None for name in names)),
        cdb=users_cdb,
        accounts=people,
        owners=Asking(lambda path: disk.owner(path, QMAILP)),
        homes=disk.home,
    )
    default = disk.seen_by(Rights(0, 0)).file(_placed(system["vpopmail_dir"]) + b"/etc/vlimits.default")

    def limits_of(domain: Any) -> Limits:
        own = disk.seen_by(Rights(domain.uid, domain.gid)).file(domain.directory + b"/.qmailadmin-limits")
        return limits.parse((default or b"") if own is None else own)

    return VMemory(
        qmail_host,
        disk,
        dict(_domains(users_cdb or {})),
        Databases(databases, disk, policy.clear_passwords).seen_by,
        Asking(limits_of),
        policy,
        _placed(system["qmail_dir"]),
    )


def policy_of(**given: str) -> Vpopmail:
    """The settings of a build, from these variables and nothing else."""
    return Vpopmail.from_settings(Settings.from_environment({"CVM_VPOPMAIL_DIR": "/v", **given}))


def _placed(text: str) -> bytes:
    return as_bytes(text).replace(b"{root}", ROOT)


def _first_of_each(records: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """A constant database as a dict: the first of two records with one key is found."""
    return dict(reversed(records))


def _domains(users_cdb: Mapping[bytes, bytes]) -> Iterator[tuple[bytes, Domain]]:
    for key, value in users_cdb.items():
        if key.startswith(b"!") and key.endswith(b"-"):
            name, uid, gid, directory, *_ = value.split(b"\0")
            yield key[1:-1], Domain(name, int(uid), int(gid), directory)


def _binary(system: Mapping[str, Any], entry: Mapping[str, Any]) -> bytes:
    data = base64.b64decode(entry["b64"] if "b64" in entry else entry["gz_b64"])
    return (gzip.decompress(data) if "gz_b64" in entry else data).replace(system["root_token"].encode(), ROOT)


def _records(system: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[bytes, bytes] | None:
    """What is in a constant database; None if it is damaged."""
    if "records" in entry:
        return _first_of_each([(_placed(key), _placed(value)) for key, value in entry["records"]])
    data = base64.b64decode(entry["b64"] if "b64" in entry else entry["gz_b64"])
    data = gzip.decompress(data) if "gz_b64" in entry else data
    try:
        records = list(cdblib.Reader(data).iteritems())
    except (OSError, struct.error, ValueError):
        return None
    if len(data) != 2048 + sum(24 + len(key) + len(value) for key, value in records):
        return None  # garbage in which something like a record was found
    token = system["root_token"].encode()
    return _first_of_each([(key, value.replace(token, ROOT)) for key, value in records])
