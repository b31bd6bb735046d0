"""What a process gives up when it has started, and cannot get back.

    no new privileges, no core dump, not to be traced by its own user
    Landlock: reads files; writes, makes, removes and executes only what it was given
    seccomp:  makes the system calls that `policies` lists for its kind

Invariants: none of it can be undone.  With CVM_SANDBOX=required a server never serves with less than all three; with
auto, `lacking` returns what the kernel lacks, for a warning at start.  A refused call fails with an errno that means
nothing else (`bpf.REFUSED`), and with a listener the supervisor is notified first: see refusals.

It uses ctypes, and not libseccomp's or another binding: all of it is about eight hundred lines that can be read,
while the library is written in C, with a module for each version of Python that few hosts have installed.

Source: prctl(2), seccomp(2), landlock(7).
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from cvm_qmail.exits import PERMANENT, Failure
from cvm_qmail.process import bpf, landlock, seccomp
from cvm_qmail.process.bpf import Cases
from cvm_qmail.process.landlock import Rule
from cvm_qmail.process.network import Network
from cvm_qmail.process.policies import QUIET
from cvm_qmail.process.syscalls import NEWEST, architecture

_SET_DUMPABLE, _SET_NO_NEW_PRIVS = 4, 38

_libc = ctypes.CDLL(None, use_errno=True)


class Unconfined(Failure):
    """The sandbox is required but not possible; the message is what is missing."""

    def __init__(self, message: str) -> None:
        super().__init__(message, PERMANENT)


class Report(NamedTuple):
    """What a process has given up."""

    process: str = ""
    """Its kind; empty: it is not in a sandbox."""
    no_new_privs: bool = False
    landlock: int = 0
    """The version of the interface; 0: none."""
    seccomp: bool = False
    heard: bool = False
    """Whether the supervisor is notified of refused calls."""


class _State:
    """That of this process."""

    report = Report()


def report() -> dict[str, object]:
    """What this process has given up, to be counted or shown."""
    return _State.report._asdict()


def described(found: Mapping[str, Any]) -> str:
    """What a process has given up, in words: a `report`, or an empty one."""
    landlock_here = f"Landlock {found.get('landlock')}" if found.get("landlock") else "no Landlock"
    return f"{landlock_here}, {'a' if found.get('seccomp') else 'no'} filter for system calls"


def lacking(network: Network) -> Iterator[str]:
    """What this host lacks for a worker that needs this network, in words."""
    version = landlock.version()
    if not version:
        yield "no Landlock: only file permissions keep a worker from writing (Linux 5.13 and later; enabled at boot)"
    elif version < 4 and network.reached:
        yield f"Landlock {version} knows no network: a worker may connect to any TCP port (Linux 6.7 and later)"
    if architecture() is None:
        yield f"no filter for system calls on {os.uname().machine}: it is made for x86_64 and aarch64"
    elif not seccomp.knows(bpf.ERRNO):
        yield "no filter for system calls: seccomp is missing, or forbidden"
    elif not seccomp.knows(bpf.USER_NOTIF):
        yield "refused system calls are in the kernel's log only (Linux 5.0 and later)"


def check(mode: str) -> None:
    """Raises `Unconfined` if `mode` is required and the sandbox is not possible."""
    if mode != "required":
        return
    if not landlock.version():
        raise Unconfined("CVM_SANDBOX=required, but this kernel has no Landlock")
    if architecture() is None or not seccomp.knows(bpf.ERRNO):
        raise Unconfined("CVM_SANDBOX=required, but there is no filter for system calls here")


def enter(
    process: str,
    mode: str,
    calls: Mapping[str, Cases],
    rules: Iterable[Rule],
    ports: Iterable[int] | None,
    *,
    notifies: bool = False,
    verdict: int = bpf.ERRNO,
) -> int:
    """Gives up all but this; returns the listener for refused calls, or -1.

    `mode`: the value of CVM_SANDBOX.  `notifies`: whether a supervisor will listen for them.  `verdict`: for refused
    calls, `bpf.ERRNO` or `bpf.TRACE`.  Raises `Unconfined`.
    """
    _libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if mode == "off":
        _State.report = Report(process, no_new_privs=True)
        return -1
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    version = _fence(mode, rules, ports)
    filtered, listener = _filter(mode, calls, notifies, verdict)
    _State.report = Report(process, True, version, filtered, listener >= 0)
    return listener


def _fence(mode: str, rules: Iterable[Rule], ports: Iterable[int] | None) -> int:
    if not landlock.version():
        check(mode)
        return 0
    try:
        return landlock.restrict(rules, ports)
    except OSError as error:
        if mode == "required":
            raise Unconfined(f"CVM_SANDBOX=required, but Landlock says: {error.strerror}") from None
        return 0


def _filter(mode: str, calls: Mapping[str, Cases], notifies: bool, verdict: int) -> tuple[bool, int]:
    """Returns whether there is a filter now, and its listener."""
    here = architecture()
    if here is None:
        check(mode)
        return False, -1
    rules = {here.numbers[name]: cases for name, cases in calls.items() if name in here.numbers}
    quiet = {here.numbers[name]: error for name, error in QUIET.items() if name in here.numbers and name not in calls}

    def made(refusal: Iterable[tuple[int, int, int, int]]) -> bytes:
        return bpf.program(here.audit, rules, quiet, NEWEST, list(refusal))

    try:
        if notifies and seccomp.knows(bpf.USER_NOTIF):
            try:
                return True, seccomp.put_in_force(made(bpf.returning(bpf.USER_NOTIF)), listener=True)
            except OSError:
                pass  # another process, such as a container's runtime, listens already: there can be only one listener
        refusal = bpf.failing() if verdict == bpf.ERRNO else bpf.returning(verdict)
        seccomp.put_in_force(made(refusal))
    except OSError as error:
        if mode == "required":
            raise Unconfined(f"CVM_SANDBOX=required, but seccomp says: {error.strerror}") from None
        return False, -1
    return True, -1
