"""A real S3 server on loopback, and a connection to it that misbehaves by script."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BUCKET = "bucket"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing-key-id",
    "AWS_SECRET_ACCESS_KEY": "testing-secret-that-stands-nowhere",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_REGION": "us-east-1",
}


class Moto:
    """moto's server as a process; what it holds is gone when it ends."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, **quiet)
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < deadline, "moto does not start"
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("PUT", f"/{BUCKET}")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)


@dataclass
class Proxy:
    """Hands requests on to a server on loopback, or does what the script says of them.

    The script is given the number of a request among those of its kind, its method and its path, and returns None, or
    "throttle" (503 SlowDown), "drop" (the connection ends before the answer), or "cut" (it ends within the body).
    """

    target: int
    script: Callable[[int, str, str], str | None] = lambda number, method, path: None
    down: bool = False
    """Whether nobody answers, as while a server restarts."""
    did: Counter[str] = field(default_factory=Counter)
    """What was done to requests."""
    requests: Counter[str] = field(default_factory=Counter)
    """How many there were, by method."""

    def __post_init__(self) -> None:
        self._lock, self._server = threading.Lock(), _Server(self)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def fault(self, method: str, path: str) -> str | None:
        """What to do to the next request."""
        with self._lock:
            self.requests[method] += 1
            number = self.requests[method]
        fault = "drop" if self.down else self.script(number, method, path)
        self.did[fault or "passed on"] += 1
        return fault

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is none of our concern."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        proxy = self.server.proxy
        body = self._body()
        fault = proxy.fault(self.command, self.path)
        if fault == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault == "throttle":
            text = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
            self._answer(503, [("Content-Type", "application/xml")], text, len(text))
            return
        connection = http.client.HTTPConnection("127.0.0.1", proxy.target, timeout=60)
        connection.request(self.command, self.path, body or None, dict(self.headers.items()))
        found = connection.getresponse()
        content = found.read()
        dropped = ("transfer-encoding", "connection", "content-length")
        headers = [(name, value) for name, value in found.getheaders() if name.lower() not in dropped]
        length = int(found.getheader("Content-Length") or 0) if self.command == "HEAD" else len(content)
        self._answer(found.status, headers, content[: len(content) // 2] if fault == "cut" else content, length)
        if fault == "cut":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        del self.headers["Transfer-Encoding"]
        return b"".join(pieces)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, length: int) -> None:
        self.send_response(status)
        for name, value in [*headers, ("Content-Length", str(length))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _handle  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def uri(port: int, prefix: str) -> str:
    return f"s3://{BUCKET}/{prefix}?endpoint_override=http%3A%2F%2F127.0.0.1%3A{port}"


@contextmanager
def proxied(moto: Moto, script: Callable[[int, str, str], str | None] | None = None) -> Iterator[Proxy]:
    proxy = Proxy(moto.port) if script is None else Proxy(moto.port, script)
    try:
        yield proxy
    finally:
        proxy.stop()
