"""What vpopmail costs: the size of a domain, the plug-in, many domains, and what a process would cost.

Invariants: as in run.py; ours beside ours, for the C program knows no vpopmail.  Where the size of the host is
what is measured, each address comes round again only after more others than are remembered.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import vworld
from bench import MB, Bench, Load, Row, Server, Wrong, kilobytes, ratios, speed
from world import Address, Answered, Host

ACCEPTED, REJECTED = 0, 100
DOMAINS, SIZE = 10_000, 100
WARM = 20_000


def addresses(bench: Bench, name: str, host: Host, asked: Sequence[Address]) -> Path:
    """The file for load.c, with the codes that the server gives now; raises `Wrong` for any but yes and no."""
    with bench.ours(host) as server:
        answered = [Answered(address.packet, server.ask(address.packet)[0]) for address in asked]
    codes = {packet.code for packet in answered}
    if not codes <= {ACCEPTED, REJECTED}:
        raise Wrong(f"{name}: codes {codes}")
    return bench.packets(name, answered)


def against(bench: Bench, label: str, one: tuple[Server, Path], other: tuple[Server, Path], least: float) -> None:
    """A row: the rate of `one` as a part of that of `other`."""

    def measure(server: Server, packets: Path) -> Callable[[], Load]:
        return lambda: bench.load(server, packets)

    for server, packets in (one, other):
        bench.warm(packets, server)
        bench.load(server, packets, count=WARM)  # until every worker has met every address often enough
    plain, other_loads = bench.in_turn(measure(*one), measure(*other))
    text, ratio = ratios(plain, other_loads)
    bench.rows.append(Row(label, "", speed(plain), text, f"≥ {least} of {speed(other_loads)}", ratio >= least))


def size(bench: Bench) -> None:
    """vpopmail: a domain of a million accounts."""
    large = bench.host("million", lambda root: vworld.one_domain(root, 1_000_000))
    small = bench.host("tenthousand", lambda root: vworld.one_domain(root, vworld.ACCOUNTS_ASKED))
    few = bench.host("thousand", lambda root: vworld.one_domain(root, 1000))
    with ExitStack() as stack:
        large_, few_ = (stack.enter_context(bench.ours(host)) for host in (large, few))
        asked = addresses(bench, "few", few, vworld.mix_with_unknown(1000))
        many = addresses(bench, "large", large, vworld.mix(1_000_000))
        small_ = stack.enter_context(bench.ours(small))
        least = addresses(bench, "small", small, vworld.mix(vworld.ACCOUNTS_ASKED))
        against(
            bench, "a million vpopmail accounts in a domain, 10,000 at random", (large_, many), (small_, least), 0.83
        )
        again = addresses(bench, "again", large, vworld.mix_with_unknown(1_000_000))
        against(
            bench,
            "the same, 2000 addresses again and again; compared with 1000 accounts",
            (large_, again),
            (few_, asked),
            0.83,
        )


def plugin(bench: Bench) -> None:
    """vpopmail: what the plug-in adds to a plain qmail lookup."""
    host = bench.host("tenthousand", lambda root: vworld.one_domain(root, vworld.ACCOUNTS_ASKED))
    exist = [Answered(address.packet, ACCEPTED) for address in vworld.mix(vworld.ACCOUNTS_ASKED)]
    once, again = bench.packets("once", exist), bench.packets("again2000", exist[:2000])
    with bench.ours(host) as with_it, bench.ours(host, CVM_QMAIL_PROGRAMS="") as without:
        against(
            bench,
            "vpopmail plug-in compared with qmail alone, 2000 addresses again and again",
            (with_it, again),
            (without, again),
            0.62,
        )
        against(bench, "the same, 10,000 addresses at random", (with_it, once), (without, once), 0.62)


def domains(bench: Bench) -> None:
    """vpopmail: 10,000 domains of 100 accounts."""
    many = bench.host("domains", lambda root: vworld.many_domains(root, DOMAINS, SIZE))
    one = bench.host("tenthousand", lambda root: vworld.one_domain(root, vworld.ACCOUNTS_ASKED))
    with bench.ours(many) as many_, bench.ours(one) as one_:
        asked = addresses(bench, "domains", many, vworld.mix_of_domains(DOMAINS, SIZE))
        least = addresses(bench, "one domain", one, vworld.mix(vworld.ACCOUNTS_ASKED))
        against(bench, "10,000 vpopmail domains of 100 accounts, at random", (many_, asked), (one_, least), 0.67)
        memory = max(kilobytes(f"{pid}/status", "VmRSS") for pid in many_.workers) / MB
        files = max(len(os.listdir(f"/proc/{pid}/fd")) for pid in many_.workers)
    bench.rows.append(
        Row("memory and descriptors of a worker then", "", f"{memory:.1f} MB, {files}", "", "< 60 MB", memory < 60)
    )


def process(bench: Bench) -> None:
    """vpopmail: what a check costs that starts a process for each address, at the least."""
    count = 200 if bench.pace.rounds > 3 else 50
    began, before = time.monotonic(), os.times()
    for _ in range(count):
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    spent = time.monotonic() - began
    after = os.times()
    cpu = sum(after[:4]) - sum(before[:4])
    bench.rows.append(
        Row(
            "a check that starts a process (/bin/true) for each address",
            "",
            f"{count / spent:,.0f} ({cpu / count * 1e6:.0f})",
        )
    )


MEASURES: dict[str, Callable[[Bench], None]] = {
    "vpopmail-size": size,
    "vpopmail-plugin": plugin,
    "vpopmail-domains": domains,
    "vpopmail-process": process,
}
