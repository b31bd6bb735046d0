"""The hosts that are measured, and the requests that are sent to them.

Invariants: what is asked is settled here, by a fixed seed: two runs ask the same.  A host is a directory with
control files, users/cdb and homes, as qmail-pw2u and qmail-newu would leave it, and a password file
that the servers see in place of /etc/passwd (see `run.Server`).  The large hosts are the small one
with more beside it: their homes are the small host's homes, so that the same requests have the same
answers, and only the size differs.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cdblib

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from hosts import Host, cdb_bytes, temporary_directory

from cvm_qmail.protocols.cvm import packets
from cvm_qmail.protocols.cvm.packets import Credential

__all__ = ["Address", "Answered", "Host", "temporary_directory"]

LOCAL = b"mail.example.org"
USERS = 1000
FIRST_UID = 100_000
ALIAS_UID, ALIAS_GID = 7790, 7791
ASKED = 2000
"""Addresses in a mix."""

AGAIN = 200
"""Addresses that are asked again and again."""

COLD_USERS, COLD_ALIASES = 10_000, 200
COLD_ASKED = 20_000
"""Distinct addresses, each asked once or twice."""

SYSTEM = "daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc _apt nobody sshd"
QMAIL = (
    f"alias:x:{ALIAS_UID}:{ALIAS_GID}::/var/qmail/alias:/bin/true",
    f"qmaild:x:7792:{ALIAS_GID}::/var/qmail:/bin/true",
    f"qmaill:x:7793:{ALIAS_GID}::/var/qmail:/bin/true",
    f"qmailp:x:7794:{ALIAS_GID}::/var/qmail:/bin/true",
    "qmailq:x:7795:7796::/var/qmail:/bin/true",
    "qmailr:x:7797:7796::/var/qmail:/bin/true",
    "qmails:x:7798:7796::/var/qmail:/bin/true",
)
"""qmail's own accounts; with root and SYSTEM the 26 lines of a small machine."""


class Address(NamedTuple):
    """What is asked."""

    account: bytes
    domain: bytes

    @property
    def packet(self) -> bytes:
        """The request as mailfront sends it: version 2, no nonce, no secret."""
        return packets.pack_request(
            packets.Request(2, b"", {Credential.ACCOUNT: self.account, Credential.DOMAIN: self.domain})
        )


class Answered(NamedTuple):
    """What is asked, and the code that has to come back."""

    packet: bytes
    code: int


def write_packets(path: Path, packets: list[Answered]) -> None:
    """The file that load.c reads."""
    path.write_bytes(
        b"".join(b"%c%s%s" % (code, len(packet).to_bytes(2, "little"), packet) for packet, code in packets)
    )


# -- hosts ------------------------------------------------------------------------------------------


def user(number: int) -> str:
    """The name of the user with this number."""
    return f"user{number:04}"


def alias(number: int) -> str:
    """The name of the alias with this number."""
    return f"alias{number:03}"


def domain(number: int) -> str:
    """The name of a virtual domain.  It belongs to `user(number % USERS)`."""
    return f"virtual{number}.example"


def owner(number: int) -> tuple[int, int]:
    """Uid and gid of a user; the caller's own if it may not give files away."""
    return (FIRST_UID + number,) * 2 if os.geteuid() == 0 else (os.geteuid(), os.getegid())


def small(root: Path, count: int = USERS, aliases: Iterable[str] = ()) -> Host:
    """This many users in users/cdb, with homes; every second home is closed to others, as on a fresh Debian.

    Of four users, one has nothing, one .qmail, one .qmail-list, one .qmail-list and .qmail-default.
    """
    host = Host(root)
    skeleton(host, aliases)
    for number in range(count):
        files = ((), (".qmail",), (".qmail-list",), (".qmail-list", ".qmail-default"))[number % 4]
        home(host, f"home/{user(number)}", *files, owner=owner(number), mode=0o700 if number % 8 < 4 else 0o755)
    host.control("virtualdomains", "".join(f"{domain(n)}:{user(n % USERS)}\n" for n in range(3, 43, 4)))
    host.file("users/cdb", cdb_bytes(list(users(root, count))))
    return host


def cold(root: Path) -> Host:
    """The same with 10,000 users, and 200 aliases."""
    return small(root, COLD_USERS, map(alias, range(COLD_ALIASES)))


def skeleton(host: Host, aliases: Iterable[str] = ()) -> None:
    """Control files, and the alias account's home."""
    for name in ("control", "users", "home"):
        host.directory(name)
    host.control("me", "mx.example.org\n")
    host.control("locals", f"localhost\nmx.example.org\n{LOCAL.decode()}\n")
    owner_of_alias = (ALIAS_UID, ALIAS_GID) if os.geteuid() == 0 else owner(0)
    files = [f".qmail-{name}" for name in ("postmaster", "mailer-daemon", "root", *aliases)]
    home(host, "alias", *files, owner=owner_of_alias, mode=0o755)


def home(host: Host, path: str, *files: str, owner: tuple[int, int], mode: int) -> None:
    """A home with .qmail files of one line."""
    uid, gid = owner
    host.directory(path, mode=mode, uid=uid, gid=gid)
    for file in files:
        host.file(f"{path}/{file}", "./Maildir/\n", uid=uid, gid=gid)


def users(root: Path, count: int = USERS) -> Iterator[tuple[bytes, bytes]]:
    """What qmail-pw2u and qmail-newu make of these users: bare names, extensions, and alias for the rest."""
    owner_of_alias = (ALIAS_UID, ALIAS_GID) if os.geteuid() == 0 else owner(0)
    yield b"!", record("alias", owner_of_alias, f"{root}/alias", "-")
    for number in range(count):
        name = user(number)
        yield f"!{name}\0".encode(), record(name, owner(number), f"{root}/home/{name}", "")
        yield f"!{name}-".encode(), record(name, owner(number), f"{root}/home/{name}", "-")
    yield b"", b"-"


def record(name: str, owner: tuple[int, int], home: str, dash: str) -> bytes:
    """User, uid, gid, home, dash, and an empty extension."""
    return "\0".join((name, *map(str, owner), home, dash, "")).encode()


def beside(root: Path, model: Host) -> Host:
    """A copy of a host's control and users, with the homes left where they are."""
    for name in ("control", "users"):
        shutil.copytree(model.root / name, root / name)
    return Host(root)


def with_entries(root: Path, model: Host, entries: int) -> Host:
    """The host with this many entries in users/cdb, its own users spread among them."""
    host = beside(root, model)
    own = list(users(model.root))
    step = entries // len(own)
    with (root / "users/cdb").open("wb") as out, cdblib.Writer(out) as writer:
        for number in range(entries):
            if number % step == 0 and number // step < len(own):
                writer.put(*own[number // step])
                continue
            name, dash = f"other{number // 2:07}", "-" if number % 2 else ""
            writer.put(f"!{name}{dash or chr(0)}".encode(), record(name, (30000, 30000), f"/home/{name}", dash))
    return host


def with_domains(root: Path, model: Host, domains: int) -> Host:
    """The host with this many virtual domains, its own ones spread among them."""
    host = beside(root, model)
    own = (model.root / "control/virtualdomains").read_text().splitlines()
    others = [f"other{number}.example:{user(number % USERS)}" for number in range(domains - len(own))]
    step = len(others) // len(own)
    for at, line in enumerate(own):
        others.insert(at * step, line)
    host.control("virtualdomains", "\n".join(others) + "\n")
    return host


def passwd(path: Path, root: Path, users: int, name: str = "user{:04}") -> Path:
    """A password file: the 26 accounts of a small machine, and this many users with homes below `root`."""
    lines = ["root:x:0:0:root:/root:/bin/bash"]
    for uid, account in enumerate(SYSTEM.split(), 1):
        lines.append(f"{account}:x:{uid}:{uid}::/nonexistent:/usr/sbin/nologin")
    lines += [line.replace("/var/qmail", str(root)) for line in QMAIL]
    for number in range(users):
        account, uid = name.format(number), FIRST_UID + number
        lines.append(f"{account}:x:{uid}:{uid}::{root}/home/{account}:/bin/bash")
    path.write_text("\n".join(lines) + "\n")
    return path


SYSTEM_USER = "sys{:05}"
SYSTEM_USERS = 50_000
SYSTEM_HOMES = 1000
"""System users that have a home, and are asked for: every 50th line of the password file."""


def without_cdb(root: Path) -> Host:
    """A host whose users are those of the password file."""
    host = Host(root)
    skeleton(host)
    for number in system_users():
        home(
            host,
            "home/" + SYSTEM_USER.format(number),
            ".qmail-list",
            owner=(FIRST_UID + number,) * 2,
            mode=0o755 if number % 100 else 0o700,
        )
    return host


def system_users() -> range:
    """The numbers of the system users that have a home."""
    return range(0, SYSTEM_USERS, SYSTEM_USERS // SYSTEM_HOMES)


# -- requests ---------------------------------------------------------------------------------------


def mix() -> list[Address]:
    """What is asked of the small host, and of those like it: 75 % exist, 20 % do not, 5 % are elsewhere."""
    dice = random.Random(1)
    kinds = {
        "bare": 35, "list": 13, "default": 10, "alias": 5, "virtual": 12,
        "unknown": 14, "unknown extension": 6, "remote": 5,
    }  # fmt: skip
    chosen = dice.choices(list(kinds), list(kinds.values()), k=ASKED)
    return [_address(kind, dice) for kind in chosen]


def cold_mix() -> list[Address]:
    """What a mail server really asks: distinct addresses of the cold host, every second one a second time, in no order.

    The same kinds as in `mix`, but fewer of alias's own: there are not so many.
    """
    dice = random.Random(3)
    kinds = {
        "bare": 38, "list": 13, "default": 10, "own alias": 1, "virtual": 12,
        "unknown": 15, "unknown extension": 6, "remote": 5,
    }  # fmt: skip
    asked: set[Address] = set()
    for kind, share in kinds.items():
        wanted = len(asked) + COLD_ASKED * share // 100
        while len(asked) < wanted:
            asked.add(_address(kind, dice, COLD_USERS))
    distinct = sorted(asked)
    again = distinct + dice.sample(distinct, COLD_ASKED // 2)
    dice.shuffle(again)
    return again


def _address(kind: str, dice: random.Random, users: int = USERS) -> Address:
    number = dice.randrange(users // 4) * 4  # of the first kind of home; +1, +2, +3: of the others
    word = f"{dice.choice('abcdefgh')}{dice.randrange(10**6)}"
    local, at = {
        "bare": (user(number + dice.randrange(4)), LOCAL),
        "list": (f"{user(number + 2 + dice.randrange(2))}-list", LOCAL),
        "default": (f"{user(number + 3)}-{word}", LOCAL),
        "alias": (dice.choice(("postmaster", "mailer-daemon", "Postmaster")), LOCAL),
        "own alias": (alias(number // 4 % COLD_ALIASES), LOCAL),
        "virtual": (word, domain(dice.randrange(3, 43, 4)).encode()),
        "unknown": (word, LOCAL),
        "unknown extension": (f"{user(number + dice.randrange(3))}-{word}", LOCAL),
        "remote": (user(number), b"%s.elsewhere.example" % word.encode()),
    }[kind]
    return Address(local.encode(), at)


def mix_without_cdb() -> list[Address]:
    """The same for the host without users/cdb."""
    dice = random.Random(2)
    addresses = []
    for kind in dice.choices(("bare", "list", "unknown", "unknown extension", "remote"), (45, 20, 20, 10, 5), k=ASKED):
        name = SYSTEM_USER.format(dice.choice(system_users()))
        word = f"{dice.choice('abcdefgh')}{dice.randrange(10**6)}"
        local = {
            "bare": name,
            "remote": name,
            "list": f"{name}-list",
            "unknown": word,
            "unknown extension": f"{name}-{word}",
        }[kind]
        addresses.append(Address(local.encode(), b"elsewhere.example" if kind == "remote" else LOCAL))
    return addresses


def dictionary(count: int) -> list[Answered]:
    """Distinct names that do not exist: unknown users, unknown extensions of users, unknown domains."""
    packets = []
    for number in range(count):
        word = b"%08x" % (number * 2654435761 % 2**32)  # a permutation: distinct, without order
        account, at = (
            (word, LOCAL),
            (b"%s-%s" % (user(number // 4 * 4 % USERS).encode(), word), LOCAL),
            (b"joe", b"%s.example" % word),
            (b"x-%s-y" % word, LOCAL),
        )[number % 4]
        packets.append(Answered(b"\2\0\1%c%s\2%c%s\0" % (len(account), account, len(at), at), 100))
    return packets
