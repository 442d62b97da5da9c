"""Training on a real Ray of this process's own, two workers on its CPUs."""

import json

import numpy as np
import pytest
import ray
import torch
from safetensors.torch import load_file

from jobs.training import TrainCluster, train_student
from pipeline.errors import PrepError
from pipeline.triples import TripleSettings, build_triples
from students.settings import StudentSettings, TrainSettings
from tests import worlds
from tests.tiny_models import save_tiny

# Ray Train's own use of Ray Data.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::ResourceWarning")
TINY = StudentSettings(max_query_tokens=8, max_passage_tokens=16, max_length_tokens=24)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    directory = tmp_path_factory.mktemp("ray-train")
    workspace = worlds.scored(worlds.paired(worlds.imported(directory)), {"a": 1, "b": 2})
    build_triples(workspace, TripleSettings(None))
    init = save_tiny("bert", directory / "tiny", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield workspace, str(init)
    ray.shutdown()


def test_two_workers_learn_what_one_learns(world):
    workspace, init = world
    settings = TrainSettings(
        "bert_dot", init, "margin_mse", "default", batch_size=10, max_steps=24, learning_rate=1e-3, student=TINY,
        eval_steps=12, eval_queries=4,
    )  # fmt: skip
    one = train_student(workspace, "one", settings)
    two = train_student(workspace, "two", settings, workers=TrainCluster(2, cpus_per_worker=0.5))
    first, second = (json.loads((t.directory / "prep.json").read_text()) for t in (one, two))
    assert one.rows % 10 and len(first["losses"]) == 24  # the epoch ends in the middle of a batch
    assert np.allclose(first["losses"], second["losses"], atol=1e-4)
    assert np.allclose(first["validations"], second["validations"], atol=1e-4)
    weights = [load_file(t.directory / "model.safetensors") for t in (one, two)]
    # A key's bias moves no score: its gradient is rounding, which Adam makes steps of.
    moving = [name for name in weights[0] if not name.endswith("key.bias")]
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-3) for name in moving)


def test_a_workers_error_comes_back_as_it_is(world):
    workspace, init = world
    settings = TrainSettings(
        "bert_dot", init, "margin_mse", "default", batch_size=8, max_steps=6, learning_rate=1e30, student=TINY
    )
    with pytest.raises(PrepError, match="not a finite number"):
        train_student(workspace, "nan", settings, workers=TrainCluster(2, cpus_per_worker=0.5))
    assert "nan" not in workspace.names("students")
