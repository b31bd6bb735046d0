"""What following a program costs: fastforward's table beside a plain .qmail-default.

Invariants: as in run.py; ours beside ours, on the same host: with the plug-ins, and without them, where
every address is accepted.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import world
from bench import Bench
from hosts import cdb_bytes
from vpopmail import ACCEPTED, against
from world import Address, Answered, Host

TARGETS = 10_000
"""Distinct addresses: more than are cached."""

ASKED = 40_000
"""Questions at random."""


def target(number: int) -> bytes:
    """The local part of a target."""
    return b"target%05d" % number


def host(root: Path, table: str) -> Host:
    """A host whose alias account has its addresses in a table of fastforward, at this path below the root."""
    made = Host(root)
    world.skeleton(made)
    uid, gid = (world.ALIAS_UID, world.ALIAS_GID) if os.geteuid() == 0 else world.owner(0)
    made.directory("etc")
    made.file("users/cdb", cdb_bytes([(b"!", world.record("alias", (uid, gid), f"{root}/alias", "-")), (b"", b"-")]))
    made.file(table, cdb_bytes(list(records())), uid=uid, gid=gid)
    made.file("alias/.qmail-default", f"|fastforward {root}/{table}\n", uid=uid, gid=gid)
    return made


def records() -> Iterator[tuple[bytes, bytes]]:
    """What setforward makes of a target a line."""
    for number in range(TARGETS):
        yield b":%s@%s" % (target(number), world.LOCAL), b"&%s@far.example\0" % target(number)


def in_turn() -> list[int]:
    """Every target, each again only after all the others: no answer is cached."""
    numbers = list(range(TARGETS))
    random.Random(1).shuffle(numbers)
    return numbers


def at_random() -> list[int]:
    """Targets at random: most of the answers are cached."""
    return random.Random(2).choices(range(TARGETS), k=ASKED)


def fastforward(bench: Bench) -> None:
    """fastforward: what a table of 10,000 targets costs beside a plain .qmail-default."""
    for table, asked, label, least in (
        (
            "alias/aliases.cdb",
            at_random,
            "10,000 fastforward targets at random, compared with a plain .qmail-default",
            0.8,
        ),
        ("etc/aliases.cdb", at_random, "the same, with a table outside of the home", 0.8),
        ("alias/aliases.cdb", in_turn, "the same, each only after all the others, so that none is cached", 0.5),
    ):
        made = bench.host(table.replace("/", "-"), partial(host, table=table))
        packets = [Answered(Address(target(number), world.LOCAL).packet, ACCEPTED) for number in asked()]
        path = bench.packets(asked.__name__, packets)
        with bench.ours(made) as with_it, bench.ours(made, CVM_QMAIL_PROGRAMS="") as without:
            against(bench, label, (with_it, path), (without, path), least)


MEASURES: dict[str, Callable[[Bench], None]] = {"fastforward": fastforward}
