"""A certificate authority for tests, and a gateway behind TLS that says what a test wants."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


class Authority:
    """Makes certificates."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self.directory = directory
        self.key, self.certificate = directory / f"{name}.key", directory / f"{name}.pem"
        self._openssl("req", "-x509", *CURVE, "-subj", f"/CN={name}", "-keyout", self.key, "-out", self.certificate)

    def issue(self, name: str, *alternatives: str) -> Path:
        """A PEM file with a certificate and its key; alternative names as ``IP:127.0.0.1``."""
        key, made, both = (self.directory / f"{name}.{kind}" for kind in ("key", "crt", "both"))
        more = ("-addext", "subjectAltName=" + ",".join(alternatives)) if alternatives else ()
        signer = ("-CA", self.certificate, "-CAkey", self.key)
        self._openssl("req", "-x509", *CURVE, *signer, "-subj", f"/CN={name}", *more, "-keyout", key, "-out", made)
        both.write_bytes(made.read_bytes() + key.read_bytes())
        return both

    def _openssl(self, *arguments: str | Path) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)


Says = Callable[[bytes], tuple[int, bytes]]


def answer(address: bytes, outcome: str, reason: str | None = None, rejection: str | None = None) -> tuple[int, bytes]:
    """Status and body as a gateway sends them."""
    said = {
        "address": address.decode("utf-8", "backslashreplace"),
        "outcome": outcome,
        "class": rejection,
        "reason": reason,
    }
    return 503 if outcome == "temporary_failure" else 200, json.dumps(said).encode()


class Distant:
    """A gateway at ``https://127.0.0.1:PORT/``."""

    def __init__(self, certificate: Path, clients: Path | None = None) -> None:
        """`clients`: who signs the certificates that clients must have; None: they need none."""
        distant = self
        self.says: Says = lambda address: answer(address, "accepted", "mailbox")
        self.asked: list[bytes] = []
        self.headers: dict[str, str] = {}
        self.connections = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def setup(self) -> None:
                super().setup()
                distant.connections += 1

            def do_GET(self) -> None:
                address = unquote_to_bytes(self.path.removeprefix("/v1/recipients/"))
                distant.asked.append(address)
                distant.headers = dict(self.headers)
                status, body = distant.says(address)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=clients)
        self.context.load_cert_chain(certificate)
        if clients is not None:
            self.context.verify_mode = ssl.CERT_REQUIRED
        self.server = _Server(("127.0.0.1", 0), Handler, self.context)
        self.port = self.server.server_address[1]
        self.url = f"https://127.0.0.1:{self.port}/"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext
    ) -> None:
        super().__init__(address, handler)
        self._context = context

    def finish_request(self, request: Any, client: Any) -> None:
        request.settimeout(20)
        with self._context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client)

    def handle_error(self, *_: Any) -> None:
        pass  # a client that does not like the certificate


@contextmanager
def distant(certificate: Path, clients: Path | None = None) -> Iterator[Distant]:
    """A gateway until the end of the block."""
    made = Distant(certificate, clients)
    thread = threading.Thread(target=made.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()
