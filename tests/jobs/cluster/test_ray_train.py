"""Training on a real Ray of this process's own, two workers on its CPUs."""

import json
import os
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from safetensors.torch import load_file

from jobs.cluster.settings import TrainCluster
from jobs.training.stage import train_student
from pipeline.errors import PrepError
from pipeline.triples.build import TripleSettings, build_triples
from students.settings import StudentSettings, TrainSettings
from tests import worlds
from tests.tiny_models import save_tiny

# Ray Train's own use of Ray Data.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::ResourceWarning")
TINY = StudentSettings(max_query_tokens=8, max_passage_tokens=16, max_length_tokens=24)

WORKERS = TrainCluster(2, cpus_per_worker=0.5)
BATCH = 26


def settings_of(init):
    """Two epochs of 8 steps, with a validation before the checkpoint that a killed run resumes from."""
    return TrainSettings(
        "bert_dot", init, "margin_mse", "default", batch_size=BATCH, epochs=2.0, learning_rate=1e-3, student=TINY,
        save_steps=5, eval_steps=4, eval_queries=4,
    )  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    directory = tmp_path_factory.mktemp("ray-train")
    workspace = worlds.scored(worlds.paired(worlds.imported(directory)), {"a": 1, "b": 2})
    build_triples(workspace, TripleSettings(None))
    init = save_tiny("bert", directory / "tiny", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield workspace, str(init)
    ray.shutdown()


def watched(folder, dies_at=None):
    """A worker's loop that writes down the rows of each step; the second worker is killed once, at a step."""

    def loop(config):
        from jobs.training.run import work
        from students.training import step_inputs

        whole, killed = step_inputs.StepInputs.__iter__, Path(folder, "killed")
        file = Path(folder, f"{'second' if killed.exists() else 'first'}-{os.getpid()}")

        def rows(self):
            for place, inputs in enumerate(whole(self)):
                step, (_, targets) = self._start + place // self._micro_batches, step_inputs.split_inputs(inputs)
                counted = targets.weights > 0
                ids = [row.tolist() for row in (targets.query_ids[counted], targets.passage_ids[counted])]
                with file.open("a") as lines:
                    lines.write(json.dumps([step, *ids]) + "\n")
                if step == dies_at and self._workers.rank == 1 and not killed.exists():
                    killed.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                yield inputs

        step_inputs.StepInputs.__iter__ = rows
        try:
            work(config["run"])
        finally:
            step_inputs.StepInputs.__iter__ = whole

    return loop


def rows_seen(folder, attempt, steps):
    """How often each row came in some steps, by epoch, given the steps of an epoch."""
    seen = Counter()
    for file in folder.glob(f"{attempt}-*"):
        for step, queries, passages in map(json.loads, file.read_text().splitlines()):
            if step in steps:
                seen.update((step, query, *pair) for query, pair in zip(queries, passages, strict=True))
    return seen


def trained_on_two(workspace, init, name, folder, dies_at=None):
    """The two epochs that all tests compare, on two workers that write down their rows."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("jobs.cluster.train._loop", watched(str(folder), dies_at))
        if dies_at:
            with pytest.raises(PrepError, match="training failed on a worker"):
                train_student(workspace, name, settings_of(init), workers=WORKERS)
            assert name not in workspace.names("students")
        trained = train_student(workspace, name, settings_of(init), workers=WORKERS)
    rows = rows_seen(folder, "first", range(trained.resumed_at if dies_at else trained.steps))
    return trained, rows + rows_seen(folder, "second", range(trained.resumed_at, trained.steps))


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    return trained_on_two(*world, "undisturbed", tmp_path_factory.mktemp("rows") / "undisturbed")


def test_two_workers_learn_what_one_learns(world, undisturbed):
    workspace, init = world
    one, two = train_student(workspace, "one", settings_of(init)), undisturbed[0]
    first, second = (json.loads((t.directory / "prep.json").read_text()) for t in (one, two))
    assert one.rows % BATCH and len(first["losses"]) == one.steps  # an epoch ends in the middle of a batch
    assert np.allclose(first["losses"], second["losses"], atol=1e-4)
    assert np.allclose(first["validations"], second["validations"], atol=1e-4)
    weights = [load_file(t.directory / "model.safetensors") for t in (one, two)]
    # A key's bias moves no score: its gradient is rounding, which Adam makes steps of.
    moving = [name for name in weights[0] if not name.endswith("key.bias")]
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-3) for name in moving)


def test_a_killed_worker_and_a_new_start_end_as_if_nothing_had_been(world, undisturbed, tmp_path):
    disturbed, rows = trained_on_two(*world, "disturbed", tmp_path / "disturbed", dies_at=7)
    calm, calm_rows = undisturbed
    assert disturbed.resumed_at == 5 and calm.resumed_at == 0
    assert rows == calm_rows
    per_epoch = calm.steps // 2
    for epoch in range(2):
        own = Counter(row[1:] for row in rows.elements() if row[0] // per_epoch == epoch)
        assert set(own.values()) == {1} and len(own) == calm.rows
    assert disturbed.validations == calm.validations
    first, second = (load_file(t.directory / "model.safetensors") for t in (disturbed, calm))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_workers_error_comes_back_as_it_is(world):
    workspace, init = world
    settings = TrainSettings(
        "bert_dot", init, "margin_mse", "default", batch_size=8, max_steps=6, learning_rate=1e30, student=TINY
    )
    with pytest.raises(PrepError, match="not a finite number"):
        train_student(workspace, "nan", settings, workers=WORKERS)
    assert "nan" not in workspace.names("students")
