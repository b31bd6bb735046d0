"""The clients of `cvmctl bench`, and what they report."""

from __future__ import annotations

import fcntl
import os
import pickle
import resource

import pytest

from cvm_qmail.cvmctl.bench.load import Tally, _gather


def test_a_thousand_clients_report_on_descriptors_beyond_1023() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3000:
        pytest.skip(f"LIMIT: {hard} open files, expected 3000")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3000), hard))
    try:
        ready, writing = os.pipe()
        client = os.fork()
        if not client:
            report = Tally()
            report.answers[0] = 7
            os.write(writing, pickle.dumps(report))
            os._exit(0)
        os.close(writing)
        high = fcntl.fcntl(ready, fcntl.F_DUPFD, 2000)
        os.close(ready)
        tally = Tally()
        _gather({high: client}, tally, 60)
        assert tally.answers == {0: 7}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
