"""Turns: who is served when."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from cvm_qmail.gateway.turns import WRITABLE, Turns


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def test_what_follows_from_an_event_is_served_in_the_same_turn(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    turns, got = Turns(), []

    def ready() -> None:
        got.append(ours.recv(1))
        if len(got) < 10:
            theirs.send(b"x")

    turns.watch(ours.fileno(), ready)
    theirs.send(b"x")
    turns.serve()
    assert len(got) == 10


def test_asyncio_has_its_turn_however_much_there_is_to_do(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    turns, served = Turns(), 0

    def ready() -> None:
        nonlocal served
        served += 1  # nothing is read: there is always something to do

    async def run() -> None:
        turns.start()
        turns.watch(ours.fileno(), ready)
        theirs.send(b"x")
        for _ in range(3):
            before = served
            while served == before:
                await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(run(), 30))


def test_it_gives_way_at_once_where_that_is_wanted(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    turns = Turns()

    async def run() -> int:
        loop, served = asyncio.get_running_loop(), 0
        done = loop.create_future()

        def ready() -> None:
            nonlocal served
            served += 1
            if not done.done():
                done.set_result(None)
            turns.give_way()

        turns.start()
        turns.watch(ours.fileno(), ready)
        theirs.send(b"x")
        await done
        return served

    assert asyncio.run(run()) == 1


def test_who_is_forgotten_is_not_called(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    turns, calls = Turns(), []

    def other() -> None:
        calls.append("other")

    def first() -> None:
        calls.append("first")
        turns.forget(ours.fileno())
        turns.forget(ours.fileno())  # once is enough

    turns.watch(ours.fileno(), first)
    theirs.send(b"x")
    turns.serve()
    assert calls == ["first"]
    turns.watch(ours.fileno(), other)
    turns.change(ours.fileno(), 0)
    turns.serve()
    assert calls == ["first"]
    turns.change(ours.fileno(), WRITABLE)
    ours.close()  # the kernel forgets a descriptor that is closed
    turns.serve()
    assert calls == ["first"]


def test_an_event_of_a_descriptor_that_was_closed_reaches_nobody() -> None:
    turns, calls = Turns(), []
    pairs = [socket.socketpair() for _ in range(3)]

    def ready() -> None:
        calls.append(1)
        for ours, _ in pairs:
            turns.forget(ours.fileno())

    for ours, theirs in pairs:
        turns.watch(ours.fileno(), ready)
        os.write(theirs.fileno(), b"x")
    turns.serve()
    assert calls == [1]
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
