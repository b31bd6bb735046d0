"""Hosts in memory: what `qmail.qmail` asks of `Tables`, answered from dicts.

    Memory(controls(locals_=b"example.org\\n"), accounts={...}, homes={b"/home/joe": Home(0o755, {...})})

`Tree` is a file system of plain files and directories, judged by owner and mode bits, for systems of the corpus.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

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


class Asking:
    """A Table made of a function."""

    def __init__(self, get: Callable[[Any], Any]) -> None:
        self.get = get


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

    def request(self, *, cacheable: bool = True) -> Request:  # noqa: ARG002  as `Tables`
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


class Node(NamedTuple):
    """A plain file, or a directory (content None)."""

    mode: int
    uid: int
    gid: int
    content: bytes | None

    def grants(self, rights: Rights, bit: int) -> bool:
        shift = 6 if rights.uid == self.uid else 3 if rights.gid == self.gid else 0
        return bool(self.mode >> shift & bit)


TOP = Node(0o755, 0, 0, None)


class Tree:
    """Plain files and directories."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, Node] = {}

    def add(self, path: bytes, node: Node) -> None:
        """Adds a node, and plain directories above it."""
        above = path
        while (above := above.rpartition(b"/")[0]) and above not in self.nodes:
            self.nodes[above] = TOP
        self.nodes[path] = node

    def find(self, path: bytes, rights: Rights) -> Node:
        """stat(2).  Raises OSError."""
        here, node = b"", TOP
        for name in path.split(b"/")[1:]:
            if node.content is not None:
                raise NotADirectoryError(here)
            if not node.grants(rights, 1):
                raise PermissionError(here)
            if name == b"..":
                here = here.rpartition(b"/")[0]
            elif name not in (b"", b"."):
                here += b"/" + name
            if here and here not in self.nodes:  # also a name that is too long
                raise FileNotFoundError(here)
            node = self.nodes[here] if here else TOP
        return node

    def home(self, path: bytes, rights: Rights) -> Home:
        """What `Tables.home` says."""
        try:
            node = self.find(path + b"/.", rights)  # chdir(2)
        except OSError as error:
            raise Unavailable("home", repr(error), path) from None
        return Home(node.mode, Asking(lambda name: self._open(b"%s/%s" % (path, name), rights)))

    def _open(self, path: bytes, rights: Rights) -> DotQmail | None:
        try:
            node = self.find(path, rights)
        except PermissionError:
            raise Unavailable("dotqmail-denied", "", path) from None
        except OSError:
            return None
        if not node.grants(rights, 4):
            raise Unavailable("dotqmail-denied", "", path)
        return None if node.content is None else DotQmail(node.mode, node.content)

    def owner(self, path: bytes, rights: Rights) -> int | None:
        """Who owns a home, for somebody with `rights`."""
        if not path:
            return None
        try:
            return self.find(path if path.startswith(b"/") else b"%s/%s" % (ROOT, path), rights).uid
        except OSError:
            return None


QMAILP = Rights(5093, 5099)


def from_corpus(system: Mapping[str, Any]) -> Memory:
    """A system of the corpus.  It must hold nothing but plain files and directories, and none of these as controls."""

    def placed(text: str) -> bytes:
        return as_bytes(text.replace("{root}", ROOT.decode()))

    tree = Tree()
    for node in system["tree"]:
        content = placed(node.get("text", "")) if node["type"] == "file" else None
        path = b"%s/%s" % (ROOT, as_bytes(node["path"]))
        tree.add(path, Node(int(node.get("mode", "0755"), 8), node.get("uid", 0), node.get("gid", 0), content))
    accounts: dict[bytes, Account] = {}
    for line in system["passwd"]:
        name, _, uid, gid, _, path, _ = placed(line).split(b":")
        accounts.setdefault(name, Account(int(uid), int(gid), path))
    names = ("me", "envnoathost", "locals", "percenthack", "virtualdomains")
    files = [placed(system["control"][name]) if name in system["control"] else None for name in names]
    found: Controls | Unavailable
    try:
        found = parse(*files)
    except Unavailable as error:
        found = error
    return Memory(
        found,
        cdb=_database(system["cdb"], placed),
        accounts=accounts,
        owners=Asking(lambda path: tree.owner(path, QMAILP)),
        homes=tree.home,
    )


def _database(cdb: Mapping[str, Any] | None, placed: Callable[[str], bytes]) -> Table[bytes, bytes] | None:
    """A dict, unless the file itself is the case."""
    if cdb is None:
        return None
    if "raw_b64" in cdb or cdb.get("mutate"):
        return Database(_cdb(cdb, placed), b"users/cdb")
    table: dict[bytes, bytes] = {}
    for key, value in cdb["records"]:
        table.setdefault(placed(key), placed(value))
    return table
