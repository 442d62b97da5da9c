"""A head and workers in containers, each a host of its own; scoring and triples by `ray job submit` from another.

Run by `make cluster-test`, which builds the image; skipped otherwise.
"""

import os
import secrets
import shutil
import subprocess

import numpy as np
import pytest

from jobs.cluster.settings import ClusterSettings
from jobs.scoring.stage import score
from jobs.scoring.teachers import Teacher
from pipeline.scores.pairs import load_pairs
from pipeline.scores.scores import load_scores, read_scores
from pipeline.storage.atomic_files import remove
from pipeline.triples.build import TripleSettings, build_triples
from pipeline.triples.sets import load_triples
from teachers.settings import ScoringSettings
from tests import stores, worlds
from tests.integration.ray_nodes import ROOT, wait_for
from tests.tiny_models import save_tiny

pytestmark = pytest.mark.skipif(not os.environ.get("PREP_CLUSTER_TEST"), reason="run by: make cluster-test")


class Containers:
    """The services of docker/compose.yaml under a name of their own."""

    def __init__(self, data):
        self.name = f"prep{secrets.token_hex(3)}"
        self._environment = {**os.environ, "RAY_AUTH_TOKEN": secrets.token_hex(32), "PREP_DATA": str(data)}
        self._environment |= stores.ENVIRONMENT
        tool = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
        self._compose = [*tool, "--file", str(ROOT / "docker" / "compose.yaml"), "--project-name", self.name]

    def compose(self, *words, check=True, **options):
        return subprocess.run([*self._compose, *words], env=self._environment, check=check, text=True, **options)

    def scale(self, workers):
        self.compose("up", "--detach", "--no-recreate", "--scale", f"worker={workers}", "head", "worker")

    def store(self):
        """Start the store; its address from here, and from the nodes."""
        self.compose("up", "--detach", "store")
        (name,) = self.running("store")
        form = f'{{{{(index .NetworkSettings.Networks "{self.name}_cluster").IPAddress}}}}'
        found = subprocess.run(["docker", "inspect", "-f", form, name], check=True, text=True, capture_output=True)
        host = found.stdout.strip()
        wait_for(lambda: stores.answers(f"{host}:8333"), 60, "the store")
        return [stores.uri(f"{there}:8333", "ws") for there in (host, "store")]

    def submit(self, *words):
        """A job from a container that is none of the nodes."""
        command = [*self._compose, "run", "--rm", "-T", "job", "ray", "job", "submit", "--", *words]
        return subprocess.Popen(command, env=self._environment)

    def nodes(self):
        found = self.compose("exec", "-T", "head", "ray", "status", capture_output=True, check=False).stdout
        return found.count("node_")

    def running(self, service):
        listed = ["docker", "ps", "--quiet", "--filter", f"name={self.name}.{service}"]
        return subprocess.run(listed, check=True, text=True, capture_output=True).stdout.split()

    def cut_off(self, container):
        """The node goes on, and nobody hears of it."""
        subprocess.run(["docker", "network", "disconnect", f"{self.name}_cluster", container], check=True)

    def down(self):
        self.compose("down", "--volumes", "--timeout", "2")


@pytest.fixture
def containers(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    found = Containers(data)
    try:
        yield found
    finally:
        found.down()


@pytest.mark.cluster
@pytest.mark.timeout(900)
@pytest.mark.parametrize("place", ["volume", "store"])
def test_nodes_that_vanish_or_fall_silent_cost_nothing_but_time(containers, tmp_path, monkeypatch, place):
    data = tmp_path / "data"
    for name, value in {**stores.ENVIRONMENT, "PREP_LOCAL_CACHE": str(tmp_path / "copies")}.items():
        monkeypatch.setenv(name, value)
    here, there = containers.store() if place == "store" else (str(data / "ws"), "/data/ws")
    workspace = worlds.paired(worlds.imported(data, here), pairs_per_shard=5)
    save_tiny("bert", data / "tiny")
    subprocess.run(["chown", "-R", "1000:1000", data], check=True)  # the image's user
    containers.scale(2)
    wait_for(lambda: containers.nodes() >= 3, 120, "three nodes")

    options = ["-w", there, "--max-length", "24", "--batch-tokens", "512", "--num-actors", "2"]
    job = containers.submit("python", "-m", "jobs.cli", "score", *options, "--teacher", "t=/data/tiny")
    wait_for(lambda: workspace.parts("scores", "t"), 180, "a first shard")
    one, other = containers.running("worker")
    containers.cut_off(one)
    subprocess.run(["docker", "kill", other], check=True, capture_output=True)
    containers.scale(3)
    assert job.wait(600) == 0
    triples = containers.submit("python", "-m", "jobs.cli", "build-triples", "-w", there, "--threshold", "none")
    assert triples.wait(200) == 0

    undisturbed = Teacher("alone", str(data / "tiny"), ScoringSettings(max_length_tokens=24, batch_tokens=512))
    subprocess.run(["chown", "-R", str(os.getuid()), data], check=True)
    pairs = load_pairs(workspace)
    before = [read_scores(path) for path in load_scores(workspace, pairs, "t").paths]
    rows = sum(footer.rows for footer in load_triples(workspace, "default")[1])
    remove(workspace.path("scores", "t"))
    score(workspace, [undisturbed], ClusterSettings())
    after = [read_scores(path) for path in load_scores(workspace, pairs, "alone").paths]
    assert all(np.allclose(one, other, atol=1e-5) for one, other in zip(before, after, strict=True))
    build_triples(workspace, TripleSettings(threshold=None), name="alone")
    assert rows == sum(footer.rows for footer in load_triples(workspace, "alone")[1])
