"""A real S3 server on loopback, and a proxy to it that injects faults by script."""

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
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pyarrow.fs import S3FileSystem

BUCKET = "bucket"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing-key-id",
    "AWS_SECRET_ACCESS_KEY": "testing-secret-that-stands-nowhere",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_REGION": "us-east-1",
}


class Server:
    """SeaweedFS as a process: keeps its data on disk, and checks signatures."""

    def __init__(self, directory: Path) -> None:
        names = ("master", "volume", "filer", "s3")
        ports = dict(zip([*names, *(f"{name}.grpc" for name in names)], free_ports(2 * len(names)), strict=True))
        self.address = f"127.0.0.1:{ports['s3']}"
        options = {
            f"{name.removesuffix('.grpc')}.port{'.grpc' * name.endswith('.grpc')}": ports[name] for name in ports
        }
        options |= {"dir": directory, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "s3": "true", "s3.iam": "false"}
        options |= {"s3.port.iceberg": 0, "s3.port.lance": 0, "master.volumeSizeLimitMB": 64, "volume.max": 0}
        options |= {"master.peers": "none", "master.telemetry": "false", "volume.minFreeSpace": "100MiB"}
        self._command = [Path(sys.executable).with_name("weed"), "server"]
        self._command += [f"-{name}={value}" for name, value in options.items()]
        self._directory = directory
        self.start()

    def start(self) -> None:
        """Starts the server on the same ports; returns when it answers requests."""
        environment = {**os.environ, **ENVIRONMENT, "HOME": str(self._directory)}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(self._command, env=environment, **quiet)
        deadline = time.monotonic() + 60
        while not answers(self.address):
            assert self._process.poll() is None and time.monotonic() < deadline, "the store does not start"
            time.sleep(0.1)

    def kill(self) -> None:
        """Kills the server, like a power cut."""
        self._process.kill()
        self._process.wait(30)


def answers(address: str) -> bool:
    """Whether the store answers requests; creates the bucket."""
    try:
        keys = {"access_key": ENVIRONMENT["AWS_ACCESS_KEY_ID"], "secret_key": ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]}
        files = S3FileSystem(**keys, scheme="http", endpoint_override=address, allow_bucket_creation=True)
        files.create_dir(BUCKET)
        with files.open_output_stream(f"{BUCKET}/first") as stream:
            stream.write(b"1")
        return True
    except OSError:
        return False


def free_ports(count: int) -> list[int]:
    """Free ports on loopback."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@dataclass
class Proxy:
    """Forwards requests to a server on loopback, or injects the fault that the script returns.

    The script gets the number of a request among those with its method, the method and the path. It returns None,
    "throttle" (503 SlowDown), "drop" (the connection ends before the answer) or "cut" (it ends within the body).
    """

    target: str
    script: Callable[[int, str, str], str | None] = lambda number, method, path: None
    did: Counter[str] = field(default_factory=Counter)
    """Number of requests by what was done to them."""
    requests: Counter[str] = field(default_factory=Counter)
    """Number of requests by method."""

    def __post_init__(self) -> None:
        self._lock, self._server = threading.Lock(), _Server(self)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def fault(self, method: str, path: str) -> str | None:
        """The fault for the next request."""
        with self._lock:
            self.requests[method] += 1
            number = self.requests[method]
        fault = self.script(number, method, path)
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
        """Ignores clients that disconnect."""


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
        with closing(http.client.HTTPConnection(proxy.target, timeout=60)) as connection:
            connection.request(self.command, self.path, body or None, dict(self.headers.items()))
            answer = connection.getresponse()
            content = answer.read()
        dropped = ("transfer-encoding", "connection", "content-length")
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in dropped]
        length = int(answer.getheader("Content-Length") or 0) if self.command == "HEAD" else len(content)
        self._answer(answer.status, headers, content[: len(content) // 2] if fault == "cut" else content, length)
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


def uri(address: str, prefix: str) -> str:
    return f"s3://{BUCKET}/{prefix}?endpoint_override=http://{address}"


@contextmanager
def proxied(server: Server, script: Callable[[int, str, str], str | None] | None = None) -> Iterator[Proxy]:
    proxy = Proxy(server.address) if script is None else Proxy(server.address, script)
    try:
        yield proxy
    finally:
        proxy.stop()
