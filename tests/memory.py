"""Hosts in memory: what `qmail.qmail` asks of `Tables`, answered from dicts.

    Memory(controls(locals_=b"example.org\\n"), accounts={...}, homes={b"/home/joe": Home(0o755, {...})})

`from_corpus` makes a system of the corpus out of it, its tree a `Disk`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, cast

from disk import Asking, Disk
from hosts import _cdb, as_bytes

from cvm_qmail.answer import Answer, Recipient, Table, Unavailable
from cvm_qmail.pipeline import Respond
from cvm_qmail.plugin import Lookup, Module, Plugin, Program
from cvm_qmail.protocols.cvm import packets
from cvm_qmail.protocols.cvm.responder import Exchange, responder
from cvm_qmail.qmail import qmail
from cvm_qmail.rules.domains import Controls
from cvm_qmail.rules.dotqmail import DotQmail, Home
from cvm_qmail.rules.users import Account
from cvm_qmail.service.events import Event
from cvm_qmail.service.service import service
from cvm_qmail.settings import Settings
from cvm_qmail.tables.cdb import Database
from cvm_qmail.tables.control import parse
from cvm_qmail.tables.dependencies import Request
from cvm_qmail.tables.door import Tables
from cvm_qmail.tables.rights import Rights

ROOT = b"/host"


class Memory:
    """Stands where `Tables` stands.  Anything that is an exception is raised when it is asked for."""

    def __init__(
        self,
        controls: Controls | Unavailable,
        *,
        cdb: Table[bytes, bytes] | Unavailable | None = None,
        accounts: Mapping[bytes, Account] | None = None,
        owners: Table[bytes, int] | None = None,
        homes: Mapping[bytes, Home | Unavailable] | Callable[[bytes, Rights], Home] | None = None,
    ) -> None:
        accounts = accounts or {}
        self._controls = controls
        self._cdb = cdb
        self._accounts = accounts
        self._owners = owners or {account.home: account.uid for account in accounts.values()}
        self._homes = homes or {}

    def request(self, **_: bool) -> Request:
        """Nothing here is watched, so nothing can be cached."""
        return Request(0.0, int, cacheable=False)

    @property
    def current(self) -> Request:
        """The current request."""
        return self.request()

    def traced(self, _: str, table: Table[Any, Any]) -> Table[Any, Any]:
        """Nobody traces."""
        return table

    def controls(self) -> Controls:
        return said(self._controls)

    def users_cdb(self) -> Table[bytes, bytes] | None:
        return said(self._cdb)

    def accounts(self) -> Table[bytes, Account]:
        return self._accounts

    def owners(self) -> Table[bytes, int]:
        return self._owners

    def home(self, path: bytes, rights: Rights) -> Home:
        if callable(self._homes):
            return self._homes(path, rights)
        return said(self._homes.get(path, Unavailable("home", "No such file or directory", path)))


def said(value: Any) -> Any:
    """The value, or the error raised."""
    if isinstance(value, Unavailable):
        raise value
    return value


def controls(
    me: bytes | None = b"mx.example.org\n",
    envnoathost: bytes | None = None,
    locals_: bytes | None = b"example.org\n",
    percenthack: bytes | None = None,
    virtualdomains: bytes | None = None,
) -> Controls:
    """Control files by their contents."""
    return parse(me, envnoathost, locals_, percenthack, virtualdomains)


def home(*names: str, mode: int = 0o40755, **contents: bytes) -> Home:
    """A home with empty .qmail files of these names; keyword arguments have contents (``_`` for ``-``)."""
    files = {name.encode(): DotQmail(0o100644, b"") for name in names}
    files |= {b".qmail" + name.replace("_", "-").encode(): DotQmail(0o100644, text) for name, text in contents.items()}
    return Home(mode, files)


ALIAS = Account(5090, 5099, b"/host/alias")
JOE = Account(5001, 5002, b"/host/home/joe")


def small(**more: Any) -> Memory:
    """joe (with -foo and -list-default), alias with postmaster; example.org is local, v.example is joe's."""
    world: dict[str, Any] = {
        "controls": controls(virtualdomains=b"v.example:joe\nnot.v.example:\n"),
        "accounts": {b"alias": ALIAS, b"joe": JOE},
        "homes": {ALIAS.home: home(".qmail-postmaster"), JOE.home: home(".qmail-foo", ".qmail-list-default")},
    }
    return Memory(**world | more)


def settings(**variables: str) -> Settings:
    """Settings from these variables and nothing else."""
    return Settings.from_environment(variables)


def tables(memory: Memory) -> Tables:
    """A host in memory as what it is for rules: all of `Tables` that they ask."""
    return cast("Tables", memory)


def module(memory: Memory, programs: tuple[Program, ...] = (), **variables: str) -> Module:
    """cvm-qmail on a host in memory."""
    return qmail(tables(memory), settings(**variables), [Plugin(program) for program in programs])


def ask(memory: Memory, address: str, programs: tuple[Program, ...] = (), **variables: str) -> Answer:
    """What cvm-qmail says of an address; one without ``@`` comes without a domain."""
    account, at, domain = address.encode("latin-1").rpartition(b"@")
    recipient = Recipient(account, domain) if at else Recipient(domain, None)
    return module(memory, programs, **variables).lookup(recipient)


def responding(to: Module | Lookup, events: list[Event], secret: bytes | None = b"") -> Respond:
    """A responder over a module, or over a lookup alone; its events are added to `events`."""
    served = to if isinstance(to, Module) else Module(to)
    return recording(responder(service(served, looks_up=secret is not None), secret), events)


def recording(exchange: Callable[[bytes, float], Exchange], events: list[Event]) -> Respond:
    """A responder alone, without cache and sinks, whose events are added to `events`."""

    def respond(packet: bytes) -> bytes:
        response, event, _ = exchange(packet, 0.0)
        if event is not None:
            events.append(event)
        return response

    return respond


def request(version: int = 2, nonce: bytes = b"", **credentials: bytes) -> bytes:
    """A request of credentials by name."""
    given = {packets.Credential[name.upper()]: value for name, value in credentials.items()}
    return packets.pack_request(packets.Request(version, nonce, given))


# -- the corpus ---------------------------------------------------------------------------------------


QMAILP = Rights(5093, 5099)


def from_corpus(system: Mapping[str, Any]) -> Memory:
    """A system of the corpus.  It must hold nothing but plain files and directories, and none of these as controls."""

    def placed(text: str) -> bytes:
        return as_bytes(text.replace("{root}", ROOT.decode()))

    disk = Disk()
    disk.plant(system["tree"], ROOT, placed)
    accounts = accounts_of(system, placed)
    names = ("me", "envnoathost", "locals", "percenthack", "virtualdomains")
    files = [placed(system["control"][name]) if name in system["control"] else None for name in names]
    found: Controls | Unavailable
    try:
        found = parse(*files)
    except Unavailable as error:
        found = error
    return Memory(
        found,
        cdb=database(system["cdb"], placed),
        accounts=accounts,
        owners=Asking(lambda path: disk.owner(path and os.path.join(ROOT, path), QMAILP)),
        homes=disk.home,
    )


def accounts_of(system: Mapping[str, Any], placed: Callable[[str], bytes]) -> dict[bytes, Account]:
    """The password file of a system of the corpus."""
    accounts: dict[bytes, Account] = {}
    for line in system["passwd"]:
        name, _, uid, gid, _, home, _ = placed(line).split(b":")
        accounts.setdefault(name, Account(int(uid), int(gid), home))
    return accounts


def database(cdb: Mapping[str, Any] | None, placed: Callable[[str], bytes]) -> Table[bytes, bytes] | None:
    """A dict, unless the file itself is the case."""
    if cdb is None:
        return None
    if "raw_b64" in cdb or cdb.get("mutate"):
        return Database(_cdb(cdb, placed), b"users/cdb")
    table: dict[bytes, bytes] = {}
    for key, value in cdb["records"]:
        table.setdefault(placed(key), placed(value))
    return table
