"""Scoring by `ray job submit` on a cluster of two nodes, with an actor killed on the way."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from jobs.cluster.settings import ClusterSettings
from jobs.scoring.stage import score
from jobs.scoring.teachers import Teacher
from pipeline.scores.pairs import load_pairs
from pipeline.scores.scores import load_scores, read_scores
from teachers.settings import ScoringSettings
from tests import worlds
from tests.integration.ray_nodes import RAY, ROOT, cluster_of, wait_for
from tests.tiny_models import save_tiny


def missing(told):
    """The metrics of the stage that a page of Prometheus lacks."""
    metrics = ("pairs", "tokens", "flop", "tasks_done", "attempts_failed")
    return [m for m in metrics if not re.search(rf'^ray_prep_{m}_total{{.*stage="score".*}} [1-9]', told, re.M)]


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_actors_on_both_nodes_score_every_shard_once_though_one_is_killed(tmp_path):
    workspace = worlds.paired(worlds.imported(tmp_path), pairs_per_shard=10)
    checkpoint = str(save_tiny("bert", tmp_path / "tiny"))
    prep = [sys.executable, "-m", "jobs.cli", "score", "-w", str(workspace.root), "--teacher", f"t={checkpoint}"]
    log = tmp_path / "submit.log"
    with cluster_of(2, tmp_path) as cluster, log.open("w") as output:
        submit = [
            RAY,
            "job",
            "submit",
            "--working-dir",
            str(ROOT),
            "--",
            *prep,
            "--num-actors",
            "2",
            "--max-length",
            "24",
        ]

        def started():
            return subprocess.Popen(submit, env=cluster.environment, stdout=output, stderr=subprocess.STDOUT)

        def two_actors():
            nonlocal submitted
            if submitted.poll() is not None and "No available agent" in log.read_text():
                submitted = started()  # the head takes jobs a little after it is up
            return len(cluster.actors()) == 2

        submitted = started()
        try:
            wait_for(two_actors, 240, "two actors")
            assert len({actor.ppid() for actor in cluster.actors()}) == 2  # of two raylets
            wait_for(cluster.kill_at_work, 60, "an actor at work")
            assert submitted.wait(200) == 0
            wait_for(lambda: not missing(cluster.metrics()), 30, "all metrics")
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
