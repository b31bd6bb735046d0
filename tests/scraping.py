"""A real Prometheus that scrapes what a test serves, and promtool."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hosts import temporary_directory
from serving import end, free_port


def answers(url: str) -> bytes | None:
    """The body of a response; None without one."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bytes(response.read())
    except OSError:
        return None


@contextmanager
def scraping(*targets: str) -> Iterator[str]:
    """A Prometheus that scrapes these each second; its address."""
    own = f"127.0.0.1:{free_port()}"
    job = {"job_name": "cvm", "scrape_interval": "1s", "static_configs": [{"targets": targets}]}
    with temporary_directory() as directory:
        (directory / "prometheus.yml").write_text(json.dumps({"scrape_configs": [job]}))
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={directory}/prometheus.yml",
                f"--storage.tsdb.path={directory}/data",
                f"--web.listen-address={own}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield own
        finally:
            end(process)


def query(prometheus: str, expression: str) -> list[Any]:
    """What it finds."""
    data = answers(f"http://{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
    found: list[Any] = json.loads(data)["data"]["result"] if data else []
    return found


def complaints(text: str) -> str:
    """What promtool has to say about the names and types in an exposition; it has no linter for OpenMetrics."""
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr + (f"exit status {done.returncode}" if done.returncode else "")
