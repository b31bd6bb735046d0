"""/metrics of a gateway: in the format that is asked for, clean for promtool, scraped by a real Prometheus."""

from __future__ import annotations

import pytest
from gateways import gateway
from hosts import Host
from scraping import complaints, query, scraping
from serving import serving, until

pytestmark = [pytest.mark.root, pytest.mark.peer("prometheus", "promtool")]

PROMETHEUS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
"""What Prometheus 2.42 sends."""


def test_promtool_finds_nothing_wrong(host: Host) -> None:
    with serving(host) as server, gateway(server.module) as running:
        server.ask("joe")
        running.outcome("joe@ours.test")
        head, body = running.response("/metrics")
    assert "Content-Type: text/plain; version=0.0.4; charset=utf-8" in head
    text = body.decode()
    assert "cvm_gateway_requests_total{" in text
    assert "cvm_requests_total{" in text
    assert "# EOF" not in text
    assert complaints(text) == ""


def test_promtool_would_find_a_mistake() -> None:
    assert "no help text" in complaints("# TYPE cvm_x_total counter\ncvm_x_total 1\n")


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        (PROMETHEUS, True),
        ("application/openmetrics-text", True),
        ("text/plain;q=0.5, application/openmetrics-text; version=1.0.0; q=0.5", True),
        ("text/plain;q=0.6, application/openmetrics-text;q=0.5", False),
        ("application/openmetrics-text;q=0", False),
        ("*/*", False),
        ("text/html,,;q=x", False),
    ],
)
def test_the_client_chooses_the_format(host: Host, accept: str, openmetrics: bool) -> None:
    with serving(host) as server, gateway(server.module) as running:
        head, body = running.response("/metrics", "http", f"Accept: {accept}")
    assert ("application/openmetrics-text" in head) == openmetrics
    assert body.endswith(b"# EOF\n") == openmetrics
    assert (b"# TYPE cvm_gateway_events counter\n" in body) == openmetrics
    assert (b"# TYPE cvm_gateway_events_total counter\n" in body) != openmetrics


def test_prometheus_scrapes_it(host: Host) -> None:
    with serving(host) as server, gateway(server.module) as running:
        server.ask("joe")
        running.outcome("joe@ours.test")
        with scraping(f"127.0.0.1:{running.ports['http']}") as prometheus:
            until(lambda: query(prometheus, "cvm_gateway_requests_total"), "it has scraped")
            assert [row["value"][1] for row in query(prometheus, "up")] == ["1"]
            assert query(prometheus, 'cvm_requests_total{outcome="accepted"}')
