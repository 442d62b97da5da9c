"""Scoring by `ray job submit` on a cluster of two nodes, with an actor killed on the way.

Both nodes are processes of this machine, started as an operator would, and ended by their own ids.
"""

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from jobs.scoring import ClusterSettings, score
from jobs.shard_scorer import Teacher
from pipeline.pairs import load_pairs
from pipeline.scores import load_scores, read_scores
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
        yield
    finally:
        for member in [*psutil.Process(process.pid).children(recursive=True), process]:
            member.kill()
        process.wait()


def joins(log):
    """The address that the head tells others to join at, once it is up."""
    found = re.search(r"ray start --address='([\d.:]+)'", log.read_text())
    return found and found[1]


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
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    head = ["--head", f"--port={port}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"]
    # Sockets live under the temporary directory, and their paths must be short.
    with ExitStack() as stack:
        short = stack.enter_context(tempfile.TemporaryDirectory(prefix="r", dir="/tmp"))
        stack.enter_context(node(environment, tmp_path / "head.log", *head, f"--temp-dir={short}"))
        address = wait_for(lambda: joins(tmp_path / "head.log"), 60, "the head")
        stack.enter_context(node(environment, tmp_path / "worker.log", f"--address={address}"))
        wait_for(lambda: "Ray runtime started" in (tmp_path / "worker.log").read_text(), 60, "the worker")
        yield {**environment, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}


@pytest.mark.cluster
@pytest.mark.timeout(400)
def test_actors_on_both_nodes_score_every_shard_once_though_one_is_killed(cluster, tmp_path):
    workspace = worlds.paired(worlds.imported(tmp_path), pairs_per_shard=10)
    checkpoint = str(save_tiny("bert", tmp_path / "tiny"))
    settings = ["--num-actors", "2", "--max-length", "24", "-w", str(workspace.root)]
    log = tmp_path / "submit.log"
    command = [
        RAY,
        "job",
        "submit",
        "--working-dir",
        str(ROOT),
        "--",
        sys.executable,
        "-m",
        "jobs.cli",
        "score",
    ]
    with log.open("w") as output:
        submitted = subprocess.Popen(
            [*command, "--teacher", f"t={checkpoint}", *settings],
            env=cluster,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def actors():
        return [p for p in psutil.process_iter(["cmdline"]) if "ray::_Worker" in " ".join(p.info["cmdline"] or [])]

    try:
        nodes = wait_for(lambda: {p.ppid() for p in actors()} if len(actors()) == 2 else None, 120, "two actors")
        assert len(nodes) == 2  # each is the child of another node's raylet
        wait_for(lambda: workspace.parts("scores", "t"), 60, "a first shard")
        actors()[0].kill()
        assert submitted.wait(200) == 0
    finally:
        submitted.kill()
        submitted.wait()
        print(log.read_text())
    summary = json.loads(workspace.path("summaries", "score.json").read_text())
    assert summary["exit_code"] == 0 and summary["pairs"] == load_pairs(workspace).pairs

    score(workspace, [Teacher("alone", checkpoint, ScoringSettings(max_length_tokens=24))], ClusterSettings())
    pairs = load_pairs(workspace)
    for path, expected in zip(*(load_scores(workspace, pairs, name).paths for name in ("t", "alone")), strict=True):
        assert np.allclose(read_scores(path), read_scores(expected), atol=1e-5)
