import json

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from jobs.commands.recipes import load_recipe, recipe_names
from pipeline.errors import UsageError
from students.settings import StudentSettings, TrainSettings

SEEDS = {
    "sbert-mnrl",
    "sbert-margin-mse",
    "sbert-cross-encoder-scratch",
    "sbert-cross-encoder-kd",
    *(f"hofstaetter-{name}" for name in ("bert-cat", "bert-dot", "colbert", "prettr", "tk")),
    *(f"teacher-{name}" for name in ("bert-base-uncased", "bert-large-uncased-whole-word-masking", "albert-large-v2")),
}


@pytest.fixture
def asked(monkeypatch, workspace):
    """The settings that a command line comes to."""

    def ask(*arguments):
        found = []

        def stop(ws, name, settings, **rest):
            found.append(settings)
            raise InterruptedError

        monkeypatch.setattr("jobs.training.stage.train_student", stop)
        result = CliRunner().invoke(app, ["train", "-w", str(workspace.root), "--name", "x", *arguments])
        if not found:
            raise result.exception
        return found[0]

    return ask


def test_every_seed_recipe_is_a_whole_run(asked):
    assert set(recipe_names()) == SEEDS
    for name in SEEDS:
        settings = asked("--recipe", name)
        assert settings.init == load_recipe(name)["init"] and settings.steps(1_000_000) > 10_000


def test_recipes_hold_what_their_sources_do(asked):
    """From matchmaker's train.py and defaults.yaml, and from `fit` and the scripts of sentence-transformers 2.7."""
    for name in SEEDS:
        found = asked("--recipe", name)
        if name.startswith("sbert"):
            assert (found.max_gradient_norm, found.weight_decay, found.schedule) == (1.0, 0.01, "linear")
            assert found.precision == "float16" and found.warmup_steps == (5000 if "cross" in name else 1000)
            continue
        assert found.max_gradient_norm == 10_000 and found.weight_decay == 0 and found.batch_size == 32
        assert (found.schedule, found.warmup_steps, found.max_steps) == ("cosine", 100, 850_000)
        assert (found.eval_steps, found.patience, found.min_steps) == (4_000, 30, 300_000)
        assert found.learning_rate == (1e-5 if name.endswith("tk") else 7e-6)
        assert found.precision == ("float32" if name.endswith("tk") else "float16")
    scratch = asked("--recipe", "sbert-cross-encoder-scratch")
    assert scratch.steps(532_761) * 30 == pytest.approx(20_000_000, rel=2e-3)


def test_options_win_over_recipes_and_recipes_over_defaults(asked):
    plain = asked("--init", "a")
    assert plain == TrainSettings("bert_dot", "a", "margin_mse", "default", student=StudentSettings())
    settings = asked("--recipe", "hofstaetter-colbert", "--init", "b", "--batch-size", "32", "--weight-decay", "0.01")
    assert (settings.init, settings.batch_size, settings.weight_decay) == ("b", 32, 0.01)
    assert (settings.architecture, settings.student.query_masks, settings.learning_rate) == ("colbert", 8, 7e-6)
    assert settings.schedule == "cosine" and settings.min_steps == 300_000
    turns = asked("--recipe", "sbert-mnrl", "--no-normalize")
    assert turns.student.normalize is False and turns.one_per_query and turns.triples == "default"


def test_a_recipe_of_ones_own_and_what_it_must_not_hold(asked, tmp_path):
    file = tmp_path / "own.toml"
    file.write_text('init = "a"\nlearning_rate = 1\narchitecture = "sparse"\n')
    assert asked("--recipe", str(file)).learning_rate == 1.0
    for text in ("rate = 1", "batch_size = '4'", "batch_size = true", "overwrite = true", "x =", "epochs = [1]"):
        file.write_text(text)
        with pytest.raises(UsageError) as error:
            asked("--recipe", str(file), "--init", "a")
        assert "own.toml" in str(error.value)
    with pytest.raises(UsageError, match="no recipe"):
        asked("--recipe", "sbert")
    with pytest.raises(UsageError, match="no checkpoint to start from"):
        asked()


def test_the_recipe_is_printed(workspace, monkeypatch):
    monkeypatch.setattr("jobs.training.stage.train_student", lambda *_, **__: (_ for _ in ()).throw(InterruptedError))
    arguments = ["train", "-w", str(workspace.root), "--name", "x", "--recipe", "hofstaetter-tk", "--epochs", "2"]
    shown = " ".join(CliRunner().invoke(app, arguments).output.split())
    assert "recipe hofstaetter-tk: architecture tk" in shown and "epochs 2.0" in shown
    assert json.dumps(load_recipe("hofstaetter-tk")["head_learning_rate"]) in shown
