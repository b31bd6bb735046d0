"""Feeds a target with mutated bytes until its invariant breaks.

    python fuzz/run.py TARGET [--seconds N | --rounds N] [--seed N]

Guided by coverage if atheris is installed, else by a plain loop over mutations.  A find is printed as
hex and saved as fuzz/finds/TARGET-<hash>; it becomes a case in the test of the module that it is about.
A target is a module here: its docstring is the invariant, SEEDS are inputs to begin with, and
``check(data)`` raises when the invariant is broken.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import random
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
FINDS = HERE / "finds"
TARGETS = sorted(path.stem.removeprefix("target_") for path in HERE.glob("target_*.py"))
LIMIT = 4096
"""Bytes of an input."""


def load(name: str) -> ModuleType:
    """The module of a target."""
    for directory in (HERE, HERE.parent / "tests"):
        if str(directory) not in sys.path:
            sys.path.insert(0, str(directory))
    return importlib.import_module(f"target_{name}")


def mutate(seeds: list[bytes], chance: random.Random) -> bytes:
    """One of the seeds with a few changes."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((0, 1, 1, 2, 4, 8))):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(7):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                data[at : at + 1] = bytes([chance.choice((0, 1, 2, 10, 32, 127, 128, 255))])
            case 2:
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
            case 3:
                del data[at : at + chance.randrange(1, 9)]
            case 4:
                del data[at:]
            case 5:
                other = chance.choice(seeds)
                data[at:] = other[chance.randrange(len(other) + 1) :]
            case 6:
                data[at:at] = data[at : at + chance.randrange(1, 64)]
    return bytes(data[:LIMIT])


def breaks(target: ModuleType, data: bytes) -> str:
    """The traceback of a broken invariant; empty: it holds."""
    try:
        target.check(data)
    except Exception:  # noqa: BLE001  whatever it is, it is a find
        return traceback.format_exc()
    return ""


def plain(target: ModuleType, rounds: int, end: float, seed: int) -> bytes | None:
    """The first find of a loop over mutations, made shorter; None: there was none."""
    chance = random.Random(seed)
    seeds = list(target.SEEDS)
    done = 0
    while done < rounds and time.monotonic() < end:
        data = seeds[done] if done < len(seeds) else mutate(seeds, chance)
        if breaks(target, data):
            return shorten(target, data)
        done += 1
    return None


def shorten(target: ModuleType, data: bytes) -> bytes:
    """The same find with every stretch left out that it does not need."""
    size = len(data)
    while size:
        at = 0
        while at < len(data):
            less = data[:at] + data[at + size :]
            if breaks(target, less):
                data = less
            else:
                at += size
        size //= 2
    return data


def save(name: str, data: bytes) -> Path:
    """Keeps a find."""
    FINDS.mkdir(exist_ok=True)
    path = FINDS / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


def guided(name: str, seconds: float) -> None:
    """Hands over to atheris, which ends the process.  It saves what it finds itself, and prints it."""
    import atheris  # only where it is installed

    with atheris.instrument_imports(include=["cvm_qmail", "cvm_vpopmail"]):
        target = load(name)
    corpus = FINDS / f"{name}.corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.SEEDS):
        (corpus / f"seed-{number}").write_bytes(data)

    def one_input(data: bytes) -> None:
        try:
            target.check(data)
        except Exception:
            print(f"find: {data.hex()}\nsaved: {save(name, data)}", flush=True)
            raise

    arguments = [f"-max_total_time={seconds:.0f}", f"-max_len={LIMIT}", str(corpus)]
    atheris.Setup([sys.argv[0], *arguments], one_input)
    atheris.Fuzz()


def main() -> int:
    """The command; exit status 1 after a find."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, help="so many inputs, by the plain loop")
    parser.add_argument("--seed", type=int, help="of the plain loop; default: another one each time")
    given = parser.parse_args()
    seed = random.randrange(1 << 32) if given.seed is None else given.seed
    if given.rounds is None:
        try:
            guided(given.target, given.seconds)
            return 0
        except ImportError:
            print(f"atheris is not installed: plain mutations, seed {seed}")
    target = load(given.target)
    end = time.monotonic() + given.seconds if given.rounds is None else float("inf")
    find = plain(target, given.rounds or sys.maxsize, end, seed)
    if find is None:
        return 0
    print(f"find: {find.hex()}\nsaved: {save(given.target, find)}\n{breaks(target, find)}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
