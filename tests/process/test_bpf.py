"""The filter, run by an interpreter of the few instructions that it has."""

from __future__ import annotations

from struct import iter_unpack, pack, unpack_from

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvm_qmail.process import bpf, policies
from cvm_qmail.process.bpf import Argument, Case
from cvm_qmail.process.network import EVERYTHING, NOTHING, Network
from cvm_qmail.process.policies import QUIET
from cvm_qmail.process.syscalls import NEWEST, Architecture, architecture

X86, ARM = 0xC000003E, 0xC00000B7
ENOSYS = bpf.ERRNO | 38


def verdict(program: bytes, number: int, *arguments: int, audit: int = X86) -> int:
    """What the filter returns for a call."""
    values = [argument & 0xFFFFFFFFFFFFFFFF for argument in (*arguments, *(0,) * 6)][:6]
    data = pack("=IIQ6Q", number, audit, 0, *values)
    code = list(iter_unpack("=HBBI", program))
    at = accumulator = 0
    while True:
        operation, true, false, operand = code[at]
        at += 1
        if operation == 0x20:
            accumulator = unpack_from("=I", data, operand)[0]
        elif operation == 0x54:
            accumulator &= operand
        elif operation == 0x04:
            accumulator += operand
        elif operation == 0x05:
            at += operand
        elif operation == 0x06:
            return int(operand)
        elif operation == 0x16:
            return int(accumulator)
        else:
            at += true if (accumulator == operand if operation == 0x15 else accumulator >= operand) else false


RULES = {
    5: (),
    6: (),
    9: (Case((Argument(1, frozenset({2, 7})),)), Case((Argument(0, frozenset({1})), Argument(1, frozenset({3}))))),
    10: (Case((Argument(2, frozenset({0}), high=True),)),),
    20: (Case((Argument(0, frozenset({4}), 0xF),), 97),),
}
PROGRAM = bpf.program(X86, RULES, {12: 38}, 100, bpf.failing())


@pytest.mark.parametrize(
    ("number", "arguments", "expected"),
    [
        (5, (), bpf.ALLOW),
        (6, (), bpf.ALLOW),
        (0, (), bpf.ERRNO | 1024),
        (7, (), bpf.ERRNO | 1031),
        (99, (), bpf.ERRNO | 1123),
        (100, (), ENOSYS),
        (0x3FFFFFFF, (), ENOSYS),
        (0x40000005, (), bpf.KILL_PROCESS),
        (0xFFFFFFFF, (), bpf.KILL_PROCESS),
        (12, (), ENOSYS),
        (9, (0, 2), bpf.ALLOW),
        (9, (0, 7), bpf.ALLOW),
        (9, (1, 3), bpf.ALLOW),
        (9, (0, 3), bpf.ERRNO | 1033),
        (9, (1, 4), bpf.ERRNO | 1033),
        (10, (0, 0, 5), bpf.ALLOW),
        (10, (0, 0, 5 << 32), bpf.ERRNO | 1034),
        (20, (0x14,), bpf.ERRNO | 97),
        (20, (0x15,), bpf.ERRNO | 1044),
    ],
)
def test_each_call_gets_its_verdict(number: int, arguments: tuple[int, ...], expected: int) -> None:
    assert verdict(PROGRAM, number, *arguments) == expected


def test_calls_of_another_architecture_end_the_process() -> None:
    assert verdict(PROGRAM, 5, audit=ARM) == verdict(PROGRAM, 5, audit=0x40000003) == bpf.KILL_PROCESS


@given(st.sets(st.integers(0, 440), max_size=200), st.integers(0, 460))
def test_exactly_what_is_allowed_is(allowed: set[int], number: int) -> None:
    program = bpf.program(X86, dict.fromkeys(allowed, ()), {}, 450, bpf.returning(bpf.USER_NOTIF))
    expected = bpf.ALLOW if number in allowed else bpf.USER_NOTIF if number < 450 else ENOSYS
    assert verdict(program, number) == expected


# -- the policies -----------------------------------------------------------------------------------


@pytest.fixture(params=["x86_64", "aarch64"])
def here(request: pytest.FixtureRequest) -> Architecture:
    found = architecture(request.param)
    assert found is not None
    return found


def filtered(here: Architecture, calls: dict[str, bpf.Cases]) -> bytes:
    rules = {here.numbers[name]: cases for name, cases in calls.items() if name in here.numbers}
    quiet = {here.numbers[name]: error for name, error in QUIET.items() if name in here.numbers}
    return bpf.program(here.audit, rules, quiet, NEWEST, bpf.failing())


def allows(here: Architecture, program: bytes, name: str, *arguments: int) -> bool:
    return verdict(program, here.numbers[name], *arguments, audit=here.audit) == bpf.ALLOW


PID = 4711
UNIX, INET, NETLINK = 1, 2, 16
STREAM, DATAGRAM, RAW = 1, 2, 3


def test_every_name_of_a_policy_is_a_call(here: Architecture) -> None:
    names = {*policies.supervisor(), *policies.worker(EVERYTHING, PID), *policies.gateway(NOTHING, PID)}
    x86 = architecture("x86_64")
    assert x86 is not None
    assert names <= set(x86.numbers)
    assert {"openat", "read", "socket", "exit_group"} <= names & set(here.numbers)


def test_a_worker_opens_to_read_only(here: Architecture) -> None:
    program = filtered(here, policies.worker(NOTHING, PID))
    assert allows(here, program, "openat", -100, 0, 0o2004000)
    for flags in (1, 2, 0o100, 0o1000, 0o2000, 0o20200000 | 1):
        assert not allows(here, program, "openat", -100, 0, flags)


def test_a_worker_opens_no_socket_but_those_that_were_declared(here: Architecture) -> None:
    for network, allowed in (
        (NOTHING, set()),
        (Network(unix=True), {(UNIX, STREAM), (UNIX, DATAGRAM)}),
        (Network(ports=frozenset({3306})), {(INET, STREAM)}),
        (Network(names=True), {(UNIX, STREAM), (UNIX, DATAGRAM), (INET, STREAM), (INET, DATAGRAM)}),
    ):
        program = filtered(here, policies.worker(network, PID))
        pairs = {(family, kind) for family in (UNIX, INET, NETLINK, 17) for kind in (STREAM, DATAGRAM, RAW)}
        assert {pair for pair in pairs if allows(here, program, "socket", *pair)} == allowed


def test_a_worker_signals_itself_alone(here: Architecture) -> None:
    program = filtered(here, policies.worker(NOTHING, PID))
    assert allows(here, program, "kill", PID, 15)
    assert not allows(here, program, "kill", 1, 15)
    assert allows(here, program, "fcntl", 3, 8, PID)
    assert not allows(here, program, "fcntl", 3, 8, 1)


@pytest.mark.parametrize("name", ["execve", "ptrace", "mount", "bpf", "keyctl", "setuid", "setresgid", "setgroups"])
def test_no_process_does_this(here: Architecture, name: str) -> None:
    for calls in (
        policies.worker(EVERYTHING, PID),
        policies.shadow(EVERYTHING, PID),
        policies.gateway(EVERYTHING, PID),
        policies.supervisor(),
    ):
        assert not allows(here, filtered(here, calls), name)


def test_the_supervisor_may_do_what_its_workers_may(here: Architecture) -> None:
    """Its filter is theirs too."""
    may = policies.supervisor()
    assert set(policies.worker(EVERYTHING, PID)) <= set(may)
    program = filtered(here, may)
    assert allows(here, program, "clone", 0x01200011)
    assert not allows(here, program, "clone", 0x10000000)
    assert "clone3" in QUIET
