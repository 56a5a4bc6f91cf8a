"""The server of the live page, which accepts connections from this machine only."""

from __future__ import annotations

import gzip
import json
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from analysis.live import livepage
from analysis.live.livestudy import LiveStudy
from mpdit.errors import ConfigError

HOST, PORT = "127.0.0.1", 8420
PAUSE_S = 1.0
"""The shortest time between two updates from disk, for any number of browsers."""
SHARE = 10
"""After an update, the pause is at least this many times the update's seconds."""
TRIED = 100
"""How many ports above a used port are tried."""
SAFE = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'"
)


class LiveServer(ThreadingHTTPServer):
    """Serves the page, its data (/live.json?since=VERSION) and sample images (/samples/RUN)."""

    daemon_threads = True

    def __init__(self, path: Path, port: int) -> None:
        self.study = LiveStudy(path)
        self._lock, self._due = threading.Lock(), 0.0
        super().__init__((HOST, port), _Handler)

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_port}/"

    def current(self) -> LiveStudy:
        """Return the study, updated if the last update is long enough ago."""
        with self._lock:
            began = time.monotonic()
            if began >= self._due:
                self.study.look()
                now = time.monotonic()
                self._due = now + max(PAUSE_S, SHARE * (now - began))
            return self.study

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore closed connections; report other errors."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.headers.get("Host", "").rpartition(":")[0] not in (HOST, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN)  # a host name that another site points here
            return
        address = urlsplit(self.path)
        try:
            if address.path == "/":
                page = livepage.html(self.server.current())
                self._send("text/html; charset=utf-8", page.encode())
            elif address.path == "/live.json":
                since = parse_qs(address.query).get("since", ["0"])[0]
                found = self.server.current().document(int(since) if since.isdecimal() else 0)
                self._send("application/json", json.dumps(found, separators=(",", ":")).encode())
            elif address.path.startswith("/samples/"):
                run = unquote(address.path.removeprefix("/samples/"))
                picture = self.server.study.picture(run)
                if picture is None:
                    self.send_error(HTTPStatus.NOT_FOUND)
                else:
                    self._send("image/png", picture.read_bytes())
            else:
                self.send_error(HTTPStatus.NOT_FOUND)
        except (ConfigError, FileNotFoundError) as gone:  # the study's folder was moved meanwhile
            self.send_error(HTTPStatus.GONE, explain=str(gone))

    def _send(self, kind: str, content: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        if kind != "image/png" and "gzip" in self.headers.get("Accept-Encoding", ""):
            content = gzip.compress(content, 5)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Content-Security-Policy", SAFE)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Log nothing, so that the terminal keeps showing the address."""


def serve(path: Path, port: int | None = None) -> None:
    """Show a study on this machine until Ctrl-C.

    Args:
        port: the port; by default PORT.

    Raises:
        ConfigError: when ``path`` is not a study, or the port cannot be used. The message names the
            next free one.
    """
    try:
        server = LiveServer(path, PORT if port is None else port)
    except OSError as error:
        wanted = PORT if port is None else port
        free = _free_after(wanted)
        reason = f"port {wanted} cannot be used ({error.strerror})."
        raise ConfigError(f"{reason} Port {free} is free: add --port {free}") from None
    with server:
        try:
            print(f"{server.study.name}: {server.address} (Ctrl-C ends it)", flush=True)
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            print("\nstopped", flush=True)


def _free_after(port: int) -> int:
    """Return the next free port."""
    first = max(port + 1, 1024)
    for other in range(first, min(first + TRIED, 65_536)):
        try:
            with ThreadingHTTPServer((HOST, other), BaseHTTPRequestHandler, False) as probe:
                probe.server_bind()
        except OSError:
            continue
        return other
    return PORT
