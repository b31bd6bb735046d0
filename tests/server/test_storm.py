"""Workers in a storm of signals: no wrong answer, nobody waits long, and nothing is blamed for it."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import suppress

import pytest
from hosts import Host
from serving import Server, serving, until

from cvm_qmail.protocols.cvm.client import NoAnswer

pytestmark = pytest.mark.root

SECONDS = float(os.environ.get("STORM_SECONDS", "6"))
"""Of the storm; 40 by hand."""

CLIENTS = 4
DEADLINE = 1.0
"""Seconds for a lookup."""

AMPLE = 5.0
"""Seconds for new workers to start; without them, clients wait for ever."""

LATE = 5
"""How often somebody may wait for a processor that others use, as long as this test itself had to wait for one."""

SIGNALS = [signal.SIGSTOP, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
QUESTIONS = {"joe": 0, "joe-foo": 0, "ann": 0, "nobody": 100, "joe-x": 100}
TEMPORARY = range(1, 100)


class Client(threading.Thread):
    """Asks, one question after the other."""

    def __init__(self, server: Server, end: float) -> None:
        super().__init__()
        self._server = server
        self._end = end
        self.outcomes: Counter[str] = Counter()
        self.longest = 0.0

    def run(self) -> None:
        """Until the end of the storm."""
        questions = list(QUESTIONS.items())
        while (began := time.monotonic()) < self._end:
            account, expected = random.choice(questions)
            self.outcomes[self._outcome(account, expected)] += 1
            self.longest = max(self.longest, time.monotonic() - began)

    def _outcome(self, account: str, expected: int) -> str:
        try:
            code = self._server.ask(account, timeout=60).code
        except (NoAnswer, OSError):
            return "no answer"
        if code == expected:
            return "answered"
        return "temporary" if code in TEMPORARY else f"wrong: {account}: {code}"


def test_a_storm_of_signals_costs_one_client_for_each_at_most(host: Host) -> None:
    variables = {"CVM_LOOKUP_TIMEOUT": str(int(DEADLINE * 1000)), "CVM_WORKERS": "2"}
    with serving(host, **variables) as server:
        until(lambda: server.ask("joe").code == 0, "it serves")
        end = time.monotonic() + SECONDS
        clients = [Client(server, end) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        sent, late = 0, 0.0
        while (began := time.monotonic()) < end:
            with suppress(ProcessLookupError, IndexError):
                os.kill(random.choice(server.workers()), random.choice(SIGNALS))
                sent += 1
            pause = random.uniform(0.0, 0.2)
            time.sleep(pause)
            late = max(late, time.monotonic() - began - pause)
        for client in clients:
            client.join()
        outcomes = sum((client.outcomes for client in clients), Counter[str]())
        until(lambda: server.ask("joe").code == 0, "it serves after the storm")
        assert "hang-backoff" not in server.log.read_text()
    longest = max(client.longest for client in clients)
    print(f"{SECONDS:g} s: {sent} signals, {dict(outcomes)}, longest wait {longest:.2f} s, late by {late:.2f} s")
    assert {"answered"} <= set(outcomes) <= {"answered", "temporary", "no answer"}
    assert outcomes.total() - outcomes["answered"] <= sent, outcomes
    assert longest < DEADLINE + AMPLE + LATE * late
