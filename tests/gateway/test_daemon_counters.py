"""/metrics of a gateway beside its daemon has the counters of both."""

from __future__ import annotations

from pathlib import Path

import pytest
from gateways import gateway
from hosts import Host
from serving import serving

pytestmark = pytest.mark.root


def test_the_daemons_counters_are_there(host: Host) -> None:
    with serving(host) as server:
        server.ask("joe")
        with gateway(server.module) as running:
            text = running.get("/metrics")[1].decode()
            assert f'cvm_requests_total{{address="{server.path}",outcome="accepted",reason="mailbox"}} 1\n' in text
            assert "cvm_gateway_connections" in text
            assert server.stop() == 0
            assert "cvm_requests_total" not in running.get("/metrics")[1].decode()


@pytest.mark.parametrize("content", [None, b"not counters"])
def test_without_them_its_own_are_shown(host: Host, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "counters"
    if content is not None:
        path.write_bytes(content)
    with serving(host) as server:
        for stats in (str(path), ""):
            with gateway(server.module, CVM_STATS=stats) as running:
                text = running.get("/metrics")[1].decode()
                assert "cvm_gateway_connections" in text
                assert "cvm_requests_total" not in text
