"""What the supervisor's sandbox leaves it."""

from __future__ import annotations

import pytest
from hosts import Host, temporary_directory
from serving import serving

pytestmark = pytest.mark.root


def test_counters_elsewhere_are_removed_at_the_end(host: Host) -> None:
    with temporary_directory() as elsewhere:
        with serving(host, CVM_STATS=str(elsewhere / "stats"), CVM_SANDBOX="auto") as server:
            assert server.ask("joe").code == 0
            assert (elsewhere / "stats").exists()
            assert server.stop() == 0
        assert not (elsewhere / "stats").exists()
