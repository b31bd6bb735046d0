"""cvmctl metrics: once to standard output, for a textfile collector; or served by HTTP.

Exit status: 0; 111 no counters.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import click

from cvm_qmail.cvmctl.host.counters import stats_of
from cvm_qmail.cvmctl.ui.output import PERMANENT, TEMPORARY, Failure
from cvm_qmail.observe.openmetrics import CONTENT_TYPE, PLAIN_TYPE, exposition, wants_openmetrics
from cvm_qmail.transports.datagram import split

IDLE = 10
"""Seconds that a client may take."""


@click.command()
@click.argument("path", required=False)
@click.option("--listen", metavar="HOST:PORT", help="Serve the counters at /metrics until interrupted.")
def metrics(path: str | None, listen: str | None) -> None:
    """Print the counters of a server for Prometheus.

    PATH is the server's socket, or its file of counters; without it CVM_STATS or CVM_LOOKUP, else the usual
    places.  The exit status is 111 if there are no counters.

    \b
      cvmctl metrics > /var/lib/prometheus/node-exporter/cvm-qmail.prom
      cvmctl metrics --listen 127.0.0.1:9127
    """  # noqa: D301  click knows the control character, not the backslash
    if listen is None:
        click.echo(exposition(stats_of(path)), nl=False)
        return
    stats_of(path)  # a mistake is reported at once
    try:
        host, port = split(listen)
    except ValueError as bad:
        raise Failure(f"--listen: {bad}", PERMANENT) from None
    try:
        server = server_at(host, int(port), path)
    except OSError as error:
        raise Failure(f"{listen}: {error.strerror or error}", TEMPORARY) from None
    except UnicodeError:
        raise Failure(f"--listen: {listen}: not a host name", PERMANENT) from None
    with suppress(KeyboardInterrupt), server:
        server.serve_forever()


def server_at(host: str, port: int, path: str | None) -> ThreadingHTTPServer:
    """An HTTP server that listens there, and serves the counters of the server with this socket.

    Raises OSError, and UnicodeError for what cannot be a host name.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]

    class Server(ThreadingHTTPServer):
        """At an IPv4 or an IPv6 address."""

        address_family = family

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Says nothing about a client that has gone."""
            if not isinstance(sys.exception(), OSError):
                super().handle_error(request, client_address)

    return Server((str(address[0]), port), _handler(path))


def _handler(path: str | None) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """GET /metrics and nothing else."""

        timeout = IDLE
        server_version = "cvmctl"
        sys_version = ""

        def do_GET(self) -> None:
            """The counters as they are now."""
            if self.path.partition("?")[0] != "/metrics":
                self._send(404, "text/plain", b"see /metrics\n")
                return
            try:
                openmetrics = wants_openmetrics(self.headers.get("Accept", ""))
                text = exposition(stats_of(path), openmetrics=openmetrics)
                self._send(200, CONTENT_TYPE if openmetrics else PLAIN_TYPE, text.encode())
            except Failure as failure:
                self._send(503, "text/plain", f"{failure.message}\n".encode())

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    return Handler
