"""Hosts with vpopmail that are measured, and the requests that are sent to them.

Invariants: as in world.py.  A domain is what vadddomain and vadduser leave: a line in users/assign, in
virtualdomains, a directory with .qmail-default and vpasswd.cdb, and homes with a Maildir for those
accounts that are asked for.  Nobody is asked for so often that an answer could be remembered, unless
that is what is measured.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import cdblib
import world
from world import Address, Host

UID = GID = 89
ACCOUNTS_ASKED = 10_000
"""Distinct addresses: more than are remembered."""

HASH = b"$6$abcdefgh$" + b"x" * 86
CATCH_ALL = b"| /home/vpopmail/bin/vdelivermail '' bounce-no-mailbox\n"


def owner() -> tuple[int, int]:
    """Uid and gid of the domains; the caller's own if it may not give files away."""
    return (UID, GID) if os.geteuid() == 0 else (os.geteuid(), os.getegid())


def account(number: int) -> bytes:
    """The name of the account with this number."""
    return b"user%07d" % number


def record(directory: bytes, name: bytes) -> bytes:
    """What vpasswd.cdb holds of an account."""
    return b"%s:1:0:%s:%s/%s:NOQUOTA" % (HASH, name, directory, name)


def accounts(path: Path, directory: bytes, names: Iterator[bytes]) -> None:
    """Writes a vpasswd.cdb."""
    with path.open("wb") as out, cdblib.Writer(out) as writer:
        for name in names:
            writer.put(name, record(directory, name))
    os.chown(path, *owner())


def a_domain(host: Host, name: str, names: Iterator[bytes], homes: Iterator[bytes]) -> None:
    """The directory of a domain, its accounts, and homes for some of them."""
    uid, gid = owner()
    directory = host.directory(f"domains/{name}", mode=0o700, uid=uid, gid=gid)
    host.file(f"domains/{name}/.qmail-default", CATCH_ALL, mode=0o600, uid=uid, gid=gid)
    accounts(directory / "vpasswd.cdb", bytes(directory), names)
    for home in homes:
        for part in ("", "/Maildir", "/Maildir/cur", "/Maildir/new", "/Maildir/tmp"):
            path = b"%s/%s%s" % (bytes(directory), home, part.encode())
            os.mkdir(path, 0o700)
            os.chown(path, uid, gid)


def one_domain(root: Path, size: int) -> Host:
    """A domain of this many accounts, of which `ACCOUNTS_ASKED`, spread among them, have homes."""
    host = Host(root)
    world.skeleton(host)
    names = map(account, range(size))
    a_domain(host, "vpop.example", names, map(account, asked(size)))
    assign(host, ["vpop.example"])
    return host


def asked(size: int) -> list[int]:
    """The numbers of the accounts that are asked for."""
    return list(range(0, size, max(1, size // ACCOUNTS_ASKED)))[:ACCOUNTS_ASKED]


def many_domains(root: Path, domains: int, size: int) -> Host:
    """This many domains of `size` accounts, of which one in each has a home."""
    host = Host(root)
    world.skeleton(host)
    names = [f"d{number:05}.example" for number in range(domains)]
    for number, name in enumerate(names):
        a_domain(host, name, map(account, range(size)), iter([account(number % size)]))
    assign(host, names)
    return host


def assign(host: Host, names: list[str]) -> None:
    """Makes these domains virtual, in virtualdomains and users/cdb."""
    host.control("virtualdomains", "".join(f"{name}:{name}\n" for name in names))
    records = list(world.users(host.root))[:1]
    with (host.root / "users/cdb").open("wb") as out, cdblib.Writer(out) as writer:
        for name in names:
            directory = f"{host.root}/domains/{name}"
            writer.put(f"!{name}-".encode(), world.record(name, owner(), directory, "-"))
        for key, value in records:
            writer.put(key, value)
        writer.put(b"", b"-")


# -- requests ---------------------------------------------------------------------------------------


def mix(size: int) -> list[Address]:
    """Accounts of one domain, all of them there, each once, in random order."""
    names = [account(number) for number in asked(size)]
    random.Random(3).shuffle(names)
    return [Address(name, b"vpop.example") for name in names]


def mix_of_domains(domains: int, size: int) -> list[Address]:
    """One account of each domain, in random order."""
    addresses = [Address(account(n % size), b"d%05d.example" % n) for n in range(domains)]
    random.Random(4).shuffle(addresses)
    return addresses


def mix_with_unknown(size: int) -> list[Address]:
    """Some 2000 addresses, over and over: 80 % are accounts, 20 % are not."""
    dice = random.Random(5)
    names = [account(number) for number in dice.sample(asked(size), min(size, 1600))]
    names += [b"x%d" % dice.randrange(10**6) for _ in range(len(names) // 4)]
    dice.shuffle(names)
    return [Address(name, b"vpop.example") for name in names]
