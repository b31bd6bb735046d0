"""cvmctl metrics: clean for promtool, scraped by a real Prometheus; alerts and dashboard find their series."""

from __future__ import annotations

import json
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from calling import called
from hosts import Host, temporary_directory
from scraping import answers, complaints, free_port, query, scraping
from serving import PATIENCE, environment, serving, until
from vcorpus import CVM_VPOPMAIL
from vdomains import VpopmailHost, vpopmail_host

from cvm_qmail.cvmctl.metrics.command import server_at

pytestmark = [pytest.mark.root, pytest.mark.peer("prometheus", "promtool")]

CVMCTL = Path(sys.executable).with_name("cvmctl")
CONTRIB = Path(__file__).parents[3] / "contrib"
ALERTS = CONTRIB / "prometheus/alerts.yml"
DASHBOARD = CONTRIB / "grafana/cvm-qmail.json"


def test_promtool_finds_nothing_wrong(host: Host) -> None:
    with serving(host) as server:
        server.ask("joe")
        server.ask("nobody")
        done = called("metrics", str(server.path), env=environment(None, {}))
    assert done.returncode == 0
    assert "# EOF" not in done.stdout
    assert 'cvm_requests_total{address="' in done.stdout
    assert complaints(done.stdout) == ""


@pytest.fixture(scope="module")
def prometheus(module_host: Host) -> Iterator[str]:
    """A Prometheus that has scraped a server; its address."""
    where, accounts = (f"127.0.0.1:{free_port()}" for _ in range(2))
    with (
        serving(module_host) as server,
        temporary_directory() as root,
        serving(vpopmail(root), program=CVM_VPOPMAIL) as other,
    ):
        for name in ("joe", "nobody"):
            server.ask(name)
        assert other.ask("bob", "example.com").code == 0
        exporters = [
            subprocess.Popen([CVMCTL, "metrics", path, "--listen", address])
            for path, address in ((server.path, where), (other.path, accounts))
        ]
        try:
            with scraping(where, accounts) as own:
                for name in ('cvm_requests_total{outcome="rejected"}', "cvm_backend_up"):
                    until(lambda name=name: query(own, name), "it has scraped both")
                yield own
        finally:
            for process in exporters:
                process.send_signal(signal.SIGTERM)
            for process in exporters:
                process.wait(PATIENCE)


@pytest.fixture(scope="module")
def module_host() -> Iterator[Host]:
    from hosts import plain_host

    with temporary_directory() as directory:
        yield plain_host(directory)


def vpopmail(root: Path) -> VpopmailHost:
    """A host with a back end."""
    host = vpopmail_host(root)
    host.accounts("example.com", "bob")
    return host


def test_prometheus_scrapes_it(prometheus: str) -> None:
    rows = query(prometheus, "sum by (outcome) (cvm_requests_total{reason!~'account|vpopmail.*'})")
    assert {row["metric"]["outcome"]: row["value"][1] for row in rows} == {"accepted": "1", "rejected": "1"}


def series(expression: str) -> set[str]:
    """The names of the series that an expression asks for."""
    return set(re.findall(r"\bcvm_[a-z_]+\b", expression))


def expressions() -> list[str]:
    """All queries of the dashboard and the alerts."""
    board = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    return found + re.findall(r"^ +expr: (.*)$", ALERTS.read_text(), re.MULTILINE)


@pytest.mark.parametrize("expression", expressions())
def test_every_query_is_understood_and_its_series_are_there(prometheus: str, expression: str) -> None:
    runnable = expression.replace("$__rate_interval", "1m")
    data = answers(f"http://{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': runnable})}")
    assert data is not None, f"Prometheus does not understand {runnable}"
    for name in series(expression):
        until(lambda name=name: query(prometheus, name), f"it has scraped {name}")


def test_the_alerts_are_sound_and_ring_when_they_should() -> None:
    for command in (["check", "rules", ALERTS], ["test", "rules", CONTRIB / "prometheus/alerts-test.yml"]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_without_counters_a_scrape_fails_and_the_exporter_goes_on(host: Host) -> None:
    where = f"127.0.0.1:{free_port()}"
    with serving(host) as server:
        exporter = subprocess.Popen([CVMCTL, "metrics", server.path, "--listen", where])
        try:
            until(lambda: answers(f"http://{where}/metrics"), "it serves")
            assert server.stop() == 0
            assert answers(f"http://{where}/metrics") is None
        finally:
            exporter.send_signal(signal.SIGINT)
            assert exporter.wait(PATIENCE) == 0


def test_a_client_that_goes_away_is_no_traceback_and_ipv6_is_served(
    host: Host, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(host) as daemon, server_at("::1", 0, str(daemon.path)) as server:
        port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            for _ in range(20):
                with socket.create_connection(("::1", port)) as client:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert answers(f"http://[::1]:{port}/metrics")
        finally:
            server.shutdown()
            thread.join()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "listen", ["9127", "localhost:", "localhost:\N{SUPERSCRIPT TWO}", "localhost:70000", "::1:9127", "a..b:1"]
)
def test_a_wrong_address_is_said(listen: str, host: Host) -> None:
    with serving(host) as server:
        done = called("metrics", str(server.path), "--listen", listen, env=environment(None, {}))
    assert (done.returncode, done.stdout) == (100, "")
    assert done.stderr.startswith("cvmctl: --listen: ")
