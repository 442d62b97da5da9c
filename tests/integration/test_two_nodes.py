"""Scoring by `ray job submit` on a cluster of two nodes, with an actor killed on the way.

Both nodes are processes of this machine, started as an operator would, and ended by their own ids.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from jobs.scoring import ClusterSettings, score
from jobs.shard_scorer import Teacher
from pipeline.pairs import load_pairs
from pipeline.scores import load_scores
from pipeline.workspace import Workspace
from teachers.settings import ScoringSettings
from tests import worlds
from tests.tiny_models import save_tiny

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def node(environment, log, *options):
    """A Ray node in the foreground of a process group of its own."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [RAY, "start", "--block", "--num-cpus=1", *options],
            env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        family = [process, *psutil.Process(process.pid).children(recursive=True)]
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        for member in family[1:]:
            if member.is_running():
                member.kill()


def wait_for(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what} did not come within {seconds} s")


@pytest.fixture
def cluster(tmp_path):
    port, dashboard = free_port(), free_port()
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}
    head = ["--head", f"--port={port}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"]
    # Sockets live under the temporary directory, and their paths must be short.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as short:
        with node(environment, tmp_path / "head.log", *head, f"--temp-dir={short}"):
            address = f"{socket.gethostbyname(socket.gethostname())}:{port}"
            wait_for(lambda: "Ray runtime started" in (tmp_path / "head.log").read_text(), 60, "the head")
            found = [line for line in (tmp_path / "head.log").read_text().splitlines() if "--address=" in line]
            address = found[0].split("--address=")[1].strip().strip("'\"") if found else address
            with node(environment, tmp_path / "worker.log", f"--address={address}"):
                wait_for(lambda: "Ray runtime started" in (tmp_path / "worker.log").read_text(), 60, "the worker")
                yield {**environment, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}


@pytest.mark.cluster
@pytest.mark.timeout(400)
def test_actors_on_both_nodes_score_every_shard_once_though_one_is_killed(cluster, tmp_path):
    workspace = worlds.paired(worlds.imported(tmp_path), pairs_per_shard=10)
    checkpoint = str(save_tiny("bert", tmp_path / "tiny"))
    settings = ["--num-actors", "2", "--max-length", "24", "-w", str(workspace.root)]
    submitted = subprocess.Popen(
        [RAY, "job", "submit", "--working-dir", str(ROOT), "--", sys.executable, "-m", "jobs.cli", "score",
         "--teacher", f"t={checkpoint}", *settings],
        env=cluster, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip

    def actors():
        return [p for p in psutil.process_iter(["cmdline"]) if "ray::_Worker" in " ".join(p.info["cmdline"] or [])]

    nodes = wait_for(lambda: {p.ppid() for p in actors()} if len(actors()) == 2 else None, 120, "two actors")
    assert len(nodes) == 2  # each is the child of another node's raylet
    wait_for(lambda: workspace.parts("scores", "t"), 60, "a first shard")
    actors()[0].kill()
    output, _ = submitted.communicate(timeout=200)
    assert submitted.returncode == 0, output
    summary = json.loads(workspace.path("summaries", "score.json").read_text())
    assert summary["exit_code"] == 0 and summary["pairs"] == load_pairs(workspace).pairs

    alone = Workspace.open(str(tmp_path / "ws"))
    found = load_scores(workspace, load_pairs(workspace), "t")
    score(alone, [Teacher("same", checkpoint, ScoringSettings(max_length_tokens=24))], ClusterSettings())
    expected = load_scores(alone, load_pairs(alone), "same")
    assert [f.content for f in found.footers] == [f.content for f in expected.footers]
