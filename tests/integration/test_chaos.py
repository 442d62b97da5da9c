"""Scoring while actors, a node and the driver are killed at random: the scores are those of an undisturbed run."""

import os
import random
import subprocess
import sys
import time

import pytest

from jobs.cluster.settings import ClusterSettings
from jobs.scoring.stage import score
from jobs.scoring.teachers import Teacher
from pipeline.scores.pairs import load_pairs
from pipeline.scores.scores import load_scores, read_scores
from teachers.settings import ScoringSettings
from tests import worlds
from tests.integration.ray_nodes import ROOT, cluster_of, wait_for
from tests.tiny_models import save_tiny

SEED = int(os.environ.get("CHAOS_SEED", "0"))
SETTINGS = ScoringSettings(max_length_tokens=24, batch_tokens=512)
DRIVER = """
import sys, time
from jobs.cluster.settings import ClusterSettings
from jobs.scoring.stage import score
from jobs.scoring.shard import ShardScorer
from jobs.scoring.teachers import Teacher
from pipeline.storage.workspace import Workspace
from teachers.settings import ScoringSettings

location, checkpoint, address = sys.argv[1:]
whole = ShardScorer.score

def slowly(self, task, report):
    time.sleep(0.2)
    whole(self, task, report)

ShardScorer.score = slowly
cluster = ClusterSettings(address=address, num_actors=3, cpus_per_actor=0.5, max_attempts=20)
teacher = Teacher("t", checkpoint, ScoringSettings(max_length_tokens=24, batch_tokens=512))
score(Workspace.open(location), [teacher], cluster)
"""


class Driver:
    """The process that hands out shards; started again where it was killed."""

    def __init__(self, command, environment, log):
        self._command, self._environment, self._log = command, environment, log
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            self._command, env=self._environment, cwd=ROOT, stdout=self._log, stderr=subprocess.STDOUT
        )

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.mark.cluster
@pytest.mark.timeout(500)
def test_whatever_is_killed_every_pair_has_its_score(tmp_path):
    rng = random.Random(SEED)
    workspace = worlds.paired(worlds.imported(tmp_path), pairs_per_shard=5)
    checkpoint = str(save_tiny("bert", tmp_path / "tiny"))
    log = tmp_path / "driver.log"
    with cluster_of(2, tmp_path) as cluster, log.open("w") as output:
        command = [sys.executable, "-c", DRIVER, str(workspace.root), checkpoint, cluster.address]
        driver = Driver(command, cluster.environment, output)
        kills = ["actor", "actor", "driver", "node"]
        rng.shuffle(kills)
        try:
            wait_for(lambda: workspace.parts("scores", "t"), 120, "a first shard")
            for kill in kills:
                time.sleep(rng.random() * 2)
                scored = len(workspace.parts("scores", "t"))
                if kill == "node":
                    cluster.kill_node()
                    cluster.add_node()
                elif kill == "driver":
                    driver.kill()
                    driver.start()
                elif running := cluster.actors():
                    rng.choice(running).kill()
                wait_for(
                    lambda scored=scored: (
                        driver.process.poll() is not None or len(workspace.parts("scores", "t")) > scored
                    ),
                    120,
                    f"a shard after the end of the {kill}",
                )
            assert driver.process.wait(200) == 0
        finally:
            driver.kill()
            print(SEED, kills, log.read_text())
    score(workspace, [Teacher("calm", checkpoint, SETTINGS)], ClusterSettings(), overwrite=True)
    pairs = load_pairs(workspace)
    sets = [load_scores(workspace, pairs, name).paths for name in ("t", "calm")]
    assert len(sets[0]) > 20
    assert [read_scores(path).tobytes() for path in sets[0]] == [read_scores(path).tobytes() for path in sets[1]]
