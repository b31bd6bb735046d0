"""A file system of dicts: directories, plain files and links, judged by owner and mode bits.

disk = Disk()
disk.file(b"/v/example.com/.qmail-default", b"| vdelivermail '' bounce-no-mailbox\\n", uid=89)
disk.seen_by(Rights(89, 89)).status(b"/v/example.com")
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping
from stat import S_IFDIR, S_IFREG
from typing import Any, NamedTuple

from hosts import as_bytes

from cvm_qmail.answer import Unavailable
from cvm_qmail.rules.dotqmail import DotQmail, Home
from cvm_qmail.tables.access import Status
from cvm_qmail.tables.rights import Rights
from cvm_vpopmail.accounts import View

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


class Asking:
    """A Table made of a function."""

    def __init__(self, get: Callable[[Any], Any]) -> None:
        self.get = get


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

    def plant(self, nodes: Iterable[Mapping[str, Any]], root: bytes, placed: Callable[[str], bytes]) -> None:
        """The tree of a system of the corpus, below `root`; a FIFO is an empty file."""
        for node in nodes:
            path = b"%s/%s" % (root, as_bytes(node["path"]))
            owner = {"uid": node.get("uid", 0), "gid": node.get("gid", 0)}
            if node["type"] == "symlink":
                self.link(path, placed(node["target"]))
            elif node["type"] == "dir":
                self.directory(path, mode=int(node.get("mode", "0755"), 8), **owner)
            else:
                self.file(path, placed(node.get("text", "")), mode=int(node.get("mode", "0644"), 8), **owner)

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
        if not path:
            raise FileNotFoundError(errno.ENOENT, "not there", path)
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
        above, _, name = path.rpartition(b"/")
        try:
            directory = self._disk.find(above + b"/.", self._rights)[0]
        except OSError:
            return False
        return self._disk.is_link(b"%s/%s" % (directory, name))
