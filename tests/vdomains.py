"""Small vpopmail hosts for tests, in a few words.

host = vpopmail_host(root)                  # example.com, with bob; alias.example is its alias
host.accounts("example.com", "bob:$6$...:1:0:Bob:{home}:NOQUOTA", cdb=True)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from hosts import Host, cdb_bytes, plain_host

from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables
from cvm_qmail.tables.rights import Rights
from cvm_vpopmail.accounts import Domain

UID = 5089
"""vpopmail's, and its group's."""

BOUNCE = "|/v/bin/vdelivermail '' bounce-no-mailbox\n"

HASH = "$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1"
"""Of the password ``secret``."""


class VpopmailHost(Host):
    """A host with qmail at `root`, and vpopmail in ``v`` below."""

    @property
    def environment(self) -> dict[str, str]:
        """What a server needs to look at this host."""
        return super().environment | {"CVM_VPOPMAIL_DIR": str(self.root / "v")}

    def at(self, path: str) -> Path:
        """A path below the domains' directory."""
        return self.root / "v/domains" / path

    def assign(self, *domains: tuple[str, str, int]) -> None:
        """users/cdb: a domain, the domain it means, and its owner's uid."""
        self.users(*(f"+{name}-:{real}:{uid}:{uid}:{{root}}/v/domains/{real}:-::" for name, real, uid in domains))

    def domain(self, name: str, uid: int = UID, lines: str = BOUNCE) -> None:
        """A domain's directory with its .qmail-default; the host's users/cdb is left alone."""
        self.directory(f"v/domains/{name}", mode=0o700, uid=uid, gid=uid)
        self.put(f"{name}/.qmail-default", lines, uid)

    def put(self, path: str, data: str | bytes, uid: int = UID, mode: int = 0o600) -> Path:
        """A file of a domain takes its name, as vpopmail's tools do it."""
        self.file(f"v/domains/{path}.new", data, mode=mode, uid=uid, gid=uid)
        return self.at(path + ".new").rename(self.at(path))

    def lines(self, domain: str, *accounts: str) -> bytes:
        """vpasswd of these accounts, each ``name:flags:quota:home``; what is left out at the end is as usual."""
        text = ""
        for account in accounts:
            name, flags, quota, home = (account.split(":") + [""] * 3)[:4]
            text += f"{name}:{HASH}:1:{flags or 0}:{name}:{home or self.at(domain) / name}:{quota or 'NOQUOTA'}\n"
        return text.encode()

    def cdb(self, domain: str, *accounts: str) -> bytes:
        """vpasswd.cdb of these accounts."""
        lines = [line.partition(b":") for line in self.lines(domain, *accounts).splitlines()]
        return cdb_bytes([(name, rest) for name, _, rest in lines])

    def accounts(self, domain: str, *accounts: str, uid: int = UID) -> None:
        """These and no other accounts, as vpopmail's tools write them."""
        self.put(f"{domain}/vpasswd", self.lines(domain, *accounts), uid)
        self.put(f"{domain}/vpasswd.cdb", self.cdb(domain, *accounts), uid)

    def home_of(self, domain: str, name: str, uid: int = UID) -> None:
        """The home of an account, with its maildir."""
        for part in ("", "/Maildir", "/Maildir/tmp", "/Maildir/new", "/Maildir/cur"):
            self.directory(f"v/domains/{domain}/{name}{part}", mode=0o700, uid=uid, gid=uid)


def vpopmail_host(root: Path) -> VpopmailHost:
    """example.com with bob, alias.example that is its alias; all that `plain_host` has beside it."""
    host = VpopmailHost(plain_host(root).root)
    host.control(
        "virtualdomains", "".join(f"{name}:{name}\n" for name in ("example.com", "alias.example", "b.example"))
    )
    host.directory("v", mode=0o711, uid=UID, gid=UID)
    host.directory("v/domains", mode=0o711, uid=UID, gid=UID)
    host.assign(("example.com", "example.com", UID), ("alias.example", "example.com", UID))
    host.domain("example.com")
    host.home_of("example.com", "bob")
    host.accounts("example.com", "bob")
    return host


def begun(host: VpopmailHost) -> Tables:
    """Tables of a host, and a request that begins."""
    tables = Tables(Settings.from_environment(host.environment))
    tables.request()
    return tables


def example(host: VpopmailHost) -> Domain:
    """Its domain."""
    return Domain(b"example.com", UID, UID, os.fsencode(host.at("example.com")))


OWNER = Rights(UID, UID)
"""Of everything of vpopmail's."""

SERVER = Rights(5077, 5078)
"""Somebody who owns nothing on these hosts."""

KINDS = {"root": None, "the owner": OWNER, "somebody by bits": SERVER}
"""Processes that look: one that may switch, one that need not, and one that can do neither."""


def as_process(kind: str, function: Callable[[], str]) -> str:
    """What the function says in a process of this kind."""
    rights = KINDS[kind]
    if rights is None:
        return function()
    readable, writable = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(rights.gid)
            os.setuid(rights.uid)
            os.write(writable, function().encode())
        finally:
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as answer:
        said = answer.read().decode()
    assert os.waitpid(pid, 0)[1] == 0
    assert said, "the process said nothing"
    return said
