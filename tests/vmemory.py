"""vpopmail hosts in memory: a disk of dicts, and the plug-in's rules with tables of dicts.

    disk = Disk()
    disk.file(b"/v/example.com/.qmail-default", b"| vdelivermail '' bounce-no-mailbox\\n", uid=89)
    disk.seen_by(Rights(89, 89)).status(b"/v/example.com")

`from_corpus` makes a system of the vpopmail corpus out of it, users/cdb and accounts as dicts.
"""

from __future__ import annotations

import base64
import errno
import gzip
import struct
from collections.abc import Callable, Iterator, Mapping
from stat import S_IFDIR, S_IFREG
from typing import Any, NamedTuple

import cdblib
from hosts import as_bytes
from memory import Asking, Memory, tables
from vhosts import AS_THE_ORIGINALS, variables

from cvm_qmail.answer import Answer, Table, Unavailable
from cvm_qmail.plugin import Delivery, Lookup, Plugin, Program
from cvm_qmail.qmail import qmail
from cvm_qmail.rules.dotqmail import DotQmail, Home
from cvm_qmail.rules.users import Account as SystemUser
from cvm_qmail.settings import Settings
from cvm_qmail.tables.access import Status
from cvm_qmail.tables.control import parse as parse_controls
from cvm_qmail.tables.rights import Rights
from cvm_vpopmail.accounts import Account, Domain, View
from cvm_vpopmail.rules import delivery as rules
from cvm_vpopmail.rules import limits
from cvm_vpopmail.rules.limits import Limits
from cvm_vpopmail.settings import Vpopmail
from cvm_vpopmail.vpasswd import parse

NOW = 1_700_000_000
LINKS = 40
"""Links on one way after which the kernel gives up (path_resolution(7))."""


class Node(NamedTuple):
    """A plain file, a link, or (neither content nor target) a directory."""

    mode: int
    uid: int
    gid: int
    content: bytes | None = None
    target: bytes | None = None
    mtime: int = NOW

    def grants(self, rights: Rights, bit: int) -> bool:
        shift = 6 if rights.uid == self.uid else 3 if rights.gid == self.gid else 0
        return bool(self.mode >> shift & bit)


class Disk:
    """A file system: directories, plain files and links, with owners and modes."""

    def __init__(self) -> None:
        self._nodes: dict[bytes, Node] = {b"": Node(0o755, 0, 0)}
        self._names: dict[bytes, list[bytes]] = {b"": []}

    def _put(self, path: bytes, node: Node) -> None:
        above, _, name = path.rpartition(b"/")
        if above not in self._nodes:
            self._put(above, Node(0o755, 0, 0))
        if path not in self._nodes:
            self._names.setdefault(above, []).append(name)
        self._nodes[path] = node

    def directory(self, *paths: bytes, mode: int = 0o755, uid: int = 0, gid: int | None = None) -> None:
        """Directories, and plain ones of root's above them."""
        for path in paths:
            self._put(path, Node(mode, uid, uid if gid is None else gid))

    def file(
        self,
        path: bytes,
        content: bytes = b"",
        *,
        mode: int = 0o644,
        uid: int = 0,
        gid: int | None = None,
        age: int = 0,
    ) -> None:
        """A plain file that was last changed `age` seconds ago."""
        self._put(path, Node(mode, uid, uid if gid is None else gid, content, mtime=NOW - age))

    def link(self, path: bytes, target: bytes) -> None:
        """A symbolic link."""
        self._put(path, Node(0o777, 0, 0, target=target))

    def maildir(self, path: bytes, uid: int) -> None:
        """A maildir that its owner may deliver to."""
        self.directory(path, *(b"%s/%s" % (path, name) for name in (b"tmp", b"new", b"cur")), mode=0o700, uid=uid)

    def remove(self, path: bytes) -> None:
        """The node and all below it."""
        for gone in [at for at in self._nodes if at == path or at.startswith(path + b"/")]:
            above, _, name = gone.rpartition(b"/")
            self._names.get(above, [name]).remove(name)
            self._names.pop(gone, None)
            del self._nodes[gone]

    # -- what the kernel says ---------------------------------------------------------------------

    def find(self, path: bytes, rights: Rights) -> tuple[bytes, Node]:
        """Where a path leads with these rights, links followed.  Raises OSError as stat(2) does."""
        names = path.split(b"/")[::-1]
        here, links = b"", 0
        while names:
            name, node = names.pop(), self._nodes[here]
            if node.content is not None:
                raise NotADirectoryError(errno.ENOTDIR, "not a directory", here)
            if name == b"":
                continue
            if not node.grants(rights, 1):
                raise PermissionError(errno.EACCES, "refused", here)
            if name in (b".", b".."):
                here = here if name == b"." else here.rpartition(b"/")[0]
                continue
            child = b"%s/%s" % (here, name)
            found = self._nodes.get(child)
            if found is None:
                raise FileNotFoundError(errno.ENOENT, "not there", child)
            if found.target is None:
                here = child
                continue
            links += 1
            if links > LINKS:
                raise OSError(errno.ELOOP, "too many links", path)
            here = b"" if found.target.startswith(b"/") else here
            names += found.target.split(b"/")[::-1]
        return here, self._nodes[here]

    def is_link(self, path: bytes) -> bool:
        """Whether a symbolic link is there; directories above it are no links."""
        node = self._nodes.get(path)
        return node is not None and node.target is not None

    def names(self, directory: bytes) -> list[bytes]:
        """What is in a directory."""
        return self._names.get(directory, [])

    def seen_by(self, rights: Rights) -> View:
        """What one user sees."""
        return _Seen(self, rights)

    # -- what `Tables` says -----------------------------------------------------------------------

    def home(self, path: bytes, rights: Rights) -> Home:
        """A home, entered.  Raises `Unavailable`."""
        try:
            mode = self.find(path + b"/.", rights)[1].mode
        except OSError as error:
            raise Unavailable("home", repr(error), path) from None
        return Home(mode, Asking(lambda name: self._dotqmail(b"%s/%s" % (path, name), rights)))

    def _dotqmail(self, path: bytes, rights: Rights) -> DotQmail | None:
        try:
            node = self.find(path, rights)[1]
        except PermissionError:
            raise Unavailable("dotqmail-denied", "", path) from None
        except OSError:
            return None
        if not node.grants(rights, 4):
            raise Unavailable("dotqmail-denied", "", path)
        return None if node.content is None else DotQmail(node.mode, node.content)

    def owner(self, path: bytes, rights: Rights) -> int | None:
        """Who owns a directory, if these rights let it be seen."""
        try:
            return self.find(path, rights)[1].uid
        except OSError:
            return None


class _Seen:
    """An `accounts.View` of a `Disk`."""

    def __init__(self, disk: Disk, rights: Rights) -> None:
        self._disk = disk
        self._rights = rights

    def _find(self, path: bytes) -> tuple[bytes, Node] | None:
        assert path.startswith(b"/"), f"not absolute: {path!r}"
        try:
            return self._disk.find(path, self._rights)
        except OSError:
            return None

    def _directory(self, path: bytes, bits: int) -> bytes | None:
        """The directory there, if it grants all of these bits."""
        found = self._find(path)
        if found is None or found[1].content is not None:
            return None
        return found[0] if all(found[1].grants(self._rights, bit) for bit in (1, 2, 4) if bit & bits) else None

    def file(self, path: bytes, /) -> bytes | None:
        found = self._find(path)
        return found[1].content if found is not None and found[1].grants(self._rights, 4) else None

    def status(self, path: bytes, /) -> Status | None:
        found = self._find(path)
        if found is None:
            return None
        node = found[1]
        kind, size = (S_IFDIR, 4096) if node.content is None else (S_IFREG, len(node.content))
        return Status(node.uid, node.gid, kind | node.mode, size, node.mtime)

    def listing(self, path: bytes, /) -> list[bytes] | None:
        directory = self._directory(path, 4)
        return None if directory is None else self._disk.names(directory)

    def enters(self, path: bytes, /) -> bool:
        return self._directory(path, 1) is not None

    def writable(self, path: bytes, /) -> bool:
        return self._directory(path, 3) is not None

    def is_link(self, path: bytes, /) -> bool:
        try:
            self._disk.find(path.rpartition(b"/")[0] or b"/", self._rights)
        except OSError:
            return False
        return self._disk.is_link(path)


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
            places = rules.Places(
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
