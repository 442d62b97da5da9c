"""Ray nodes as processes of this machine, started as an operator would, and ended by their own ids."""

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what} did not come within {seconds} s")


def end(process):
    """Kill a process and all it has started."""
    try:
        members = [*psutil.Process(process.pid).children(recursive=True), process]
    except psutil.NoSuchProcess:
        members = [process]
    for member in members:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


def _own_ports() -> list[str]:
    """Ports that a node would share with those of other clusters: without its agent a head takes no jobs."""
    names = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "runtime-env-agent-port")
    return [f"--{name}={free_port()}" for name in names]


class Cluster:
    """A head and worker nodes, each a process group of its own."""

    def __init__(self, logs: Path) -> None:
        self.logs, self.nodes, self._count = logs, [], 0
        self.environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.environment |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_metrics_report_interval_ms": "1000",
        }

    def start_head(self, temporary: str) -> None:
        """Start the head; its sockets and logs go to `temporary`."""
        self._temporary = Path(temporary)
        dashboard = free_port()
        self.environment["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{dashboard}"
        log = self._start(
            "--head",
            f"--port={free_port()}",
            f"--ray-client-server-port={free_port()}",
            f"--dashboard-port={dashboard}",
            "--dashboard-host=127.0.0.1",
            f"--temp-dir={temporary}",
        )
        self.address = wait_for(lambda: _joins(log), 60, "the head")

    def metrics(self) -> str:
        """What Prometheus would read from all nodes now."""
        told = json.loads((self._temporary / "prom_metrics_service_discovery.json").read_text())
        targets = [target for group in told for target in group["targets"]]
        pages = []
        for target in targets:
            with suppress(OSError), urllib.request.urlopen(f"http://{target}/metrics", timeout=5) as page:
                pages.append(page.read().decode())
        return "\n".join(pages)

    def add_node(self) -> None:
        """Start a worker node and wait until it is part of the cluster."""
        log = self._start(f"--address={self.address}")
        wait_for(lambda: "Ray runtime started" in log.read_text(), 60, "the worker")

    def _start(self, *options: str) -> Path:
        self._count += 1
        log = self.logs / f"node{self._count}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [RAY, "start", "--block", "--num-cpus=1", *_own_ports(), *options],
                env=self.environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.nodes.append(process)
        return log

    def actors(self) -> list[psutil.Process]:
        """The scoring actors on all nodes."""
        started = [child for node in self.nodes for child in psutil.Process(node.pid).children(recursive=True)]
        return [process for process in started if "ray::PoolWorker" in _command(process)]

    def kill_at_work(self) -> bool:
        """Kill a scoring actor in the middle of a task; whether there was one."""
        for actor in self.actors():
            actor.suspend()
            if "ray::PoolWorker.run" in _command(actor):  # not in what it does before its first task, nor between two
                actor.kill()
                return True
            actor.resume()
        return False

    def end(self) -> None:
        """End all nodes, the head last."""
        while self.nodes:
            self.kill_node()

    def kill_node(self) -> None:
        """End the youngest node and all that runs on it, without a word."""
        end(self.nodes.pop())


def _command(process):
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def _joins(log):
    """The address that the head tells others to join at, once it is up."""
    found = re.search(r"ray start --address='([\d.:]+)'", log.read_text())
    return found and found[1]


@contextmanager
def cluster_of(nodes: int, logs: Path):
    """A head and `nodes` - 1 workers; all ended with the block."""
    # Sockets live under the temporary directory, and their paths must be short.
    with ExitStack() as stack:
        short = stack.enter_context(tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True))
        cluster = Cluster(logs)
        stack.callback(cluster.end)
        cluster.start_head(short)
        for _ in range(nodes - 1):
            cluster.add_node()
        yield cluster
