import gc
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification, TrainingArguments

from jobs.models.token_stores import open_stores
from jobs.ranking.encode import encode_passages
from jobs.ranking.evaluate import EvaluationSettings, evaluate
from jobs.training.sources import list_batches
from jobs.training.stage import is_training_of, train_student, training_recipe
from pipeline.collection.texts import Texts
from pipeline.errors import ModelError, PrepError, UsageError, WorkspaceError
from pipeline.tables.parts import part_name, write_part
from pipeline.tables.provenance import Recipe
from pipeline.triples.build import TripleSettings, build_triples
from students.architectures.bert_cat import BertCat
from students.inference.loading import load_student
from students.inference.scorer import SeparateScorer
from students.settings import StudentSettings, TrainSettings
from students.token_rows import Tokens
from students.training.in_batch import InBatchTeacher
from students.training.loop import training_arguments
from students.training.trainer import StudentTrainer
from teachers.settings import ScoringSettings
from tests import worlds
from tests.tiny_models import save_tiny

TINY = StudentSettings(max_query_tokens=8, max_passage_tokens=16, max_length_tokens=24)
PRETTR = {"student": replace(TINY, split_layer=1)}


@pytest.fixture(scope="module")
def trained_on(tmp_path_factory):
    directory = tmp_path_factory.mktemp("training")
    workspace = worlds.scored(worlds.paired(worlds.imported(directory)), {"a": 1, "b": 2})
    build_triples(workspace, TripleSettings(None))
    return workspace, str(save_tiny("bert", directory / "tiny"))


@pytest.fixture(autouse=True, scope="module")
def fast_runs():
    """Half of a tiny run is the plot (0.3 s) and the trainer's full garbage collection (0.2 s)."""
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.training.model_card._plot", lambda path, facts: None)
        yield
    gc.unfreeze()


def settings(init, **changes):
    options = {
        "architecture": "bert_dot",
        "init": init,
        "loss": "margin_mse",
        "triples": "default",
        "batch_size": 8,
    }
    return TrainSettings(
        **{**options, "learning_rate": 1e-3, "max_steps": 12, "save_steps": 5, "student": TINY, **changes}
    )


def test_margin_mse_goes_down(trained_on):
    workspace, init = trained_on
    trained = train_student(workspace, "down", settings(init, max_steps=40, learning_rate=3e-3))
    losses = [loss for _, loss in json.loads((trained.directory / "prep.json").read_text())["losses"]]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


@pytest.mark.parametrize(
    ("architecture", "loss"), [("bert_cat", "ranknet"), ("bert_cat", "bce"), ("bert_dot", "ranknet")]
)
def test_labels_train_either_architecture(trained_on, architecture, loss):
    workspace, init = trained_on
    options = settings(init, architecture=architecture, loss=loss, triples=None, negatives=2)
    trained = train_student(workspace, f"{architecture}-{loss}", options)
    assert trained.steps == 12 and not trained.unchanged
    model = AutoModelForSequenceClassification if architecture == "bert_cat" else AutoModel
    assert model.from_pretrained(trained.directory).config.hidden_size


@pytest.mark.parametrize(
    ("architecture", "loss", "more"),
    [
        ("colbert", "margin_mse+0.1*mnrl", {}),
        ("prettr", "margin_mse", {**PRETTR, "max_steps": 60, "learning_rate": 3e-3, "batch_size": 32}),
        ("tk", "pointwise_mse+weighted_ranknet", {"embedding_learning_rate": 1e-4, "head_learning_rate": 1e-2}),
        ("sparse", "kl", {"flops_query": 1e-3, "flops_passage": 1e-3}),
        ("bert_dot", "mnrl", {"triples": None, "negatives": 2}),
        ("bert_dot", "margin_mse", {"agreement": 1.0, "freeze_layers": 1, "schedule": "cosine", "warmup_steps": 2}),
    ],
)
def test_every_architecture_learns_and_is_kept(trained_on, architecture, loss, more):
    workspace, init = trained_on
    name = "-".join([architecture, *loss.replace("*", "-").split("+")])
    options = {"architecture": architecture, "loss": loss, "max_steps": 30, **more}
    trained = train_student(workspace, name, settings(init, **options))
    losses = [loss for _, loss in json.loads((trained.directory / "prep.json").read_text())["losses"]]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert np.isfinite(load_student(str(trained.directory)).score(["aka"], ["aka bel"]).item())


def test_cross_encoders_have_no_in_batch_negatives(trained_on):
    workspace, init = trained_on
    with pytest.raises(UsageError, match="in-batch"):
        train_student(workspace, "no", settings(init, architecture="bert_cat", loss="mnrl"))
    assert not workspace.path("students", ".training-no").exists()


def test_a_teacher_in_training_scores_the_whole_batch(trained_on, monkeypatch):
    workspace, init = trained_on
    student = replace(TINY, normalize=True, scale=5.0)
    train_student(workspace, "late", settings(init, architecture="colbert", student=student))
    scorer = SeparateScorer.load(str(workspace.path("students", "late")), ScoringSettings())
    tokens = Tokens(*open_stores(workspace, init))
    queries, passages = np.array([3, 1, 3]), np.array([7, 2, 7, 5])
    texts = Texts(workspace, "queries").take(queries), Texts(workspace, "passages").take(passages)
    expected = [[5 * scorer.student.score([query], [passage]).item() for passage in texts[1]] for query in texts[0]]
    assert np.allclose(InBatchTeacher(scorer, tokens).scores(queries, passages), expected, atol=1e-5)

    options = {"loss": "in_batch_margin_mse", "in_batch_teacher": "late", "max_steps": 24, "learning_rate": 3e-3}
    trained = train_student(workspace, "early", settings(init, **options))
    losses = [loss for _, loss in json.loads((trained.directory / "prep.json").read_text())["losses"]]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])

    encode_passages(workspace, "late", str(workspace.path("students", "late")), storage="float32")
    monkeypatch.setattr(InBatchTeacher, "_encode", lambda *_: pytest.fail("the states are there already"))
    again = train_student(workspace, "early-2", settings(init, **options))
    assert np.allclose([loss for _, loss in json.loads((again.directory / "prep.json").read_text())["losses"]], losses)


def test_a_teacher_in_training_reads_query_and_passage_apart(trained_on):
    workspace, init = trained_on
    train_student(workspace, "joint", settings(init, architecture="bert_cat", loss="ranknet", max_steps=0))
    with pytest.raises(ModelError, match="together"):
        train_student(workspace, "no", settings(init, loss="in_batch_kl", in_batch_teacher="joint"))


def test_another_teacher_in_training_is_another_student(trained_on):
    workspace, init = trained_on
    for seed in (1, 2):
        train_student(workspace, "theirs", settings(init, seed=seed, max_steps=1), overwrite=True)
        options = settings(init, loss="in_batch_kl", in_batch_teacher="theirs", max_steps=1)
        assert not train_student(workspace, "ours", options, overwrite=True).unchanged
    assert train_student(workspace, "ours", options).unchanged


def test_parts_of_a_batch_add_up_to_the_whole(trained_on):
    workspace, _ = trained_on
    plain = str(save_tiny("bert", workspace.root / "plain", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    changes = {"max_steps": 26, "agreement": 2.0, "batch_size": 8}  # the last batch of an epoch is smaller
    whole, parts = (
        train_student(workspace, f"parts-{size}", settings(plain, micro_batch_size=size, **changes))
        for size in (None, 3)
    )
    first, second = (json.loads((t.directory / "prep.json").read_text())["losses"] for t in (whole, parts))
    assert whole.rows % 8 and whole.rows < 8 * 26
    assert np.allclose(first, second, rtol=1e-4)


def test_lists_train_with_all_their_passages(trained_on):
    workspace, init = trained_on
    rng = np.random.default_rng(0)
    lists = pa.table(
        {
            "query_id": pa.array(np.arange(20) % 16, pa.int32()),
            "passage_ids": [rng.permutation(80)[: 4 + i % 2].astype(np.int32) for i in range(20)],
            "scores": [rng.normal(size=4 + i % 2).astype(np.float32) for i in range(20)],
        }
    )
    for part in range(2):
        path = workspace.path("lists", "own") / part_name(part)
        path.parent.mkdir(parents=True, exist_ok=True)
        recipe = Recipe("lists", {}, {})
        write_part(path, lists.slice(part * 10, 10).to_batches(), lists.schema, recipe, part=part, parts=2)
    options = {"triples": None, "lists": "own", "list_size": 4, "loss": "kl"}
    assert train_student(workspace, "lists", settings(init, **options)).rows == 20
    source = list_batches(workspace.parts("lists", "own"), [10, 10], 0, 4)
    batch = source.batch(0, 8, 5)
    assert batch.passages.tolist() == [row[:4] for row in lists["passage_ids"].to_pylist()[8:13]]
    assert np.array_equal(batch.teacher, [row[:4] for row in lists["scores"].to_pylist()[8:13]])
    with pytest.raises(WorkspaceError, match="too few passages"):
        train_student(workspace, "long", settings(init, **{**options, "list_size": 5}))
    with pytest.raises(WorkspaceError, match="no lists"):
        train_student(workspace, "none", settings(init, **{**options, "lists": "others"}))


def test_the_best_state_is_kept_and_no_gain_ends_the_run(trained_on, monkeypatch):
    workspace, init = trained_on
    measures = iter([0.1, 0.5, 0.5, 0.4, 0.3])
    states = []

    def measure(student):
        states.append({name: weight.clone() for name, weight in student.encoder.state_dict().items()})
        return next(measures)

    monkeypatch.setattr("jobs.training.run.reranking_measure", lambda workspace, settings: measure)
    options = {"eval_steps": 4, "patience": 2, "max_steps": 40}
    trained = train_student(workspace, "stopped", settings(init, **options))
    assert (trained.steps, trained.kept_step) == (16, 8)
    assert trained.validations == ((4, 0.1), (8, 0.5), (12, 0.5), (16, 0.4))
    kept = load_file(trained.directory / "model.safetensors")
    assert all(torch.equal(weight, states[1][name]) for name, weight in kept.items())
    assert any(not torch.equal(weight, states[3][name]) for name, weight in kept.items())


def test_validation_measures_by_reranking_and_survives_a_kill(trained_on):
    workspace, init = trained_on
    options = {"eval_steps": 4, "max_steps": 12, "eval_queries": 5, "eval_depth": 8, "seed": 3}
    whole = train_student(workspace, "measured", settings(init, **options))

    def die(step, steps, loss):
        if step == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_student(workspace, "measured-2", settings(init, **options), on_step=die)
    resumed = train_student(workspace, "measured-2", settings(init, **options))
    assert resumed.resumed_at == 8 and resumed.validations == whole.validations and len(whole.validations) == 3
    assert resumed.kept_step == whole.kept_step and all(0 <= value <= 1 for _, value in whole.validations)
    first, second = (load_file(t.directory / "model.safetensors") for t in (whole, resumed))
    assert all(torch.equal(first[key], second[key]) for key in first)
    evaluated = evaluate(
        workspace, EvaluationSettings("dev", students=["measured"], max_queries=5, candidates="bm25", depth=8)
    )
    assert evaluated[0].queries == 5
    # Other judgements or candidates may keep another state.
    recipe = training_recipe(workspace, settings(init, **options))
    assert is_training_of(workspace.read_json("students", "measured", "prep.json"), settings(init, **options), recipe)
    measured = {"qrels", "retrieved/bm25 of dev"}
    assert set(recipe.inputs) - set(training_recipe(workspace, settings(init, max_steps=12)).inputs) == measured


def test_one_triple_of_each_query_an_epoch(trained_on):
    workspace, init = trained_on
    options = {"loss": "mnrl", "one_per_query": True, "max_steps": None, "epochs": 2.0}
    trained = train_student(workspace, "turns", settings(init, **options))
    assert trained.rows <= worlds.TRAIN and trained.steps == 2 * -(-trained.rows // 8)


def test_the_head_learns_at_its_own_rate(trained_on):
    workspace, init = trained_on
    options = {"architecture": "bert_cat", "loss": "bce", "triples": None, "head_learning_rate": 1e-9}
    torch.manual_seed(0)
    before = BertCat.from_checkpoint(init, TINY).encoder.state_dict()
    trained = train_student(workspace, "slow-head", settings(init, **options))
    moved = {k: (v - before[k]).abs().max() for k, v in load_file(trained.directory / "model.safetensors").items()}
    head = {name for name in moved if "classifier" in name or "pooler" in name}
    assert len(head) == 4 and max(moved[name] for name in head) < 1e-6
    assert min(moved[name] for name in moved.keys() - head if name.endswith("query.weight")) > 1e-4


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"warmup_steps": 4, "schedule": "linear"},
            [0, 1 / 4, 1 / 2, 3 / 4, 1, 7 / 8, 3 / 4, 5 / 8, 1 / 2, 3 / 8, 1 / 4, 1 / 8],
        ),
        ({"warmup_share": 0.25, "schedule": "constant"}, [0, 1 / 3, 2 / 3, *[1] * 9]),
        ({"warmup_share": 0.0, "schedule": "cosine"}, [(1 + np.cos(np.pi * i / 12)) / 2 for i in range(12)]),
        ({}, [0, *[(12 - i) / 11 for i in range(1, 12)]]),
    ],
)
def test_the_learning_rate_of_every_step(trained_on, monkeypatch, options, expected):
    """As a share of the peak, for the encoder and for the head."""
    workspace, init = trained_on
    rates, step = [], torch.optim.AdamW.step

    def recording(self, *arguments, **named):
        rates.append({group["lr"] for group in self.param_groups if group["params"]})
        return step(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", recording)
    chosen = settings(init, architecture="colbert", learning_rate=1e-3, head_learning_rate=1e-2, **options)
    train_student(workspace, f"rate-{'-'.join(map(str, options.values()))}", chosen)
    assert len(rates) == 12
    for found, share in zip(rates, expected, strict=True):
        assert sorted(found) == pytest.approx(sorted({1e-3 * share, 1e-2 * share}), abs=1e-9)


def test_what_would_stop_training_later_stops_it_before_a_text_is_tokenised(trained_on, monkeypatch):
    workspace, init = trained_on
    monkeypatch.setattr("jobs.training.run.make_stores", lambda *_, **__: pytest.fail("tokenised"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ModelError, match="exceeds the encoder's positions"):
        train_student(workspace, "long", settings(init, student=replace(TINY, max_passage_tokens=65)))
    with pytest.raises(UsageError, match="a CPU does not train in float16"):
        train_student(workspace, "half", settings(init, precision="float16"))
    assert not {"long", "half"} & set(workspace.names("students"))


def test_a_machine_with_many_gpus_trains_on_one(tmp_path, monkeypatch):
    ready = TrainingArguments.__post_init__

    def with_four(self):
        ready(self)
        self._n_gpu = 4

    monkeypatch.setattr(TrainingArguments, "__post_init__", with_four)
    settings = TrainSettings("bert_dot", "x", "margin_mse", "default")
    assert training_arguments(settings, 3, tmp_path).n_gpu == 1


def test_no_steps_give_the_start(trained_on):
    workspace, init = trained_on
    student = replace(TINY, num_layers=1)
    start = train_student(workspace, "start", settings(init, max_steps=0, student=student))
    kept = load_file(start.directory / "model.safetensors")
    whole = AutoModel.from_pretrained(init)
    assert start.last_loss is None and AutoModel.from_pretrained(start.directory).config.num_hidden_layers == 1
    assert len(kept) < len(whole.state_dict())
    assert all(torch.equal(weight, whole.state_dict()[name]) for name, weight in kept.items())


def test_a_killed_run_goes_on_at_the_right_row_to_the_same_weights(trained_on, monkeypatch):
    workspace, init = trained_on
    whole = train_student(workspace, "whole", settings(init, seed=3))

    def die(step, steps, loss):
        if step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_student(workspace, "resumed", settings(init, seed=3), on_step=die)
    assert "resumed" not in workspace.names("students")
    seen = []
    monkeypatch.setattr("students.training.batches.ShuffledParts.batch", _recording(seen))
    resumed = train_student(workspace, "resumed", settings(init, seed=3))
    assert resumed.resumed_at == 5 and seen[0] == (0, 40)
    first, second = (load_file(t.directory / "model.safetensors") for t in (whole, resumed))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not workspace.path("students", ".training-resumed").exists()


def test_a_run_killed_after_its_last_checkpoint_has_nothing_left_to_train(trained_on, monkeypatch):
    workspace, init = trained_on
    asked = settings(init, seed=4, max_steps=5)
    whole = train_student(workspace, "last-whole", asked)

    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("students.training.loop._Progress.on_save", die)
    with pytest.raises(KeyboardInterrupt):
        train_student(workspace, "last-cut", asked)
    monkeypatch.undo()
    resumed = train_student(workspace, "last-cut", asked)
    first, second = (load_file(t.directory / "model.safetensors") for t in (whole, resumed))
    assert resumed.resumed_at == 5 and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("cut", ["_save", "_save_optimizer_and_scheduler", "_save_rng_state"])
def test_a_run_killed_while_it_saves_goes_on_from_the_checkpoint_before(trained_on, monkeypatch, cut):
    workspace, init = trained_on
    whole = train_student(workspace, "whole", settings(init, seed=3))

    def die(trainer, *_, **__):
        if trainer.state.global_step == 10:
            raise KeyboardInterrupt
        return original(trainer, *_, **__)

    original = getattr(StudentTrainer, cut)
    monkeypatch.setattr(StudentTrainer, cut, die)
    with pytest.raises(KeyboardInterrupt):
        train_student(workspace, f"cut{cut}", settings(init, seed=3))
    monkeypatch.undo()
    resumed = train_student(workspace, f"cut{cut}", settings(init, seed=3))
    first, second = (load_file(t.directory / "model.safetensors") for t in (whole, resumed))
    assert resumed.resumed_at == 5 and all(torch.equal(first[key], second[key]) for key in first)


def _recording(seen):
    from students.training.batches import ShuffledParts

    batch = ShuffledParts.batch

    def record(self, epoch, start, size):
        seen.append((epoch, start))
        return batch(self, epoch, start, size)

    return record


def test_training_again_does_nothing_and_other_settings_need_a_word(trained_on):
    workspace, init = trained_on
    first = train_student(workspace, "once", settings(init))
    weights = (first.directory / "model.safetensors").stat().st_mtime_ns
    assert train_student(workspace, "once", settings(init)).unchanged
    assert (first.directory / "model.safetensors").stat().st_mtime_ns == weights
    with pytest.raises(WorkspaceError, match="trained with other settings") as error:
        train_student(workspace, "once", settings(init, learning_rate=1e-4))
    assert "learning_rate" in str(error.value)
    assert not train_student(workspace, "once", settings(init, learning_rate=1e-4), overwrite=True).unchanged


def test_a_loss_that_is_no_number_stops_the_run(trained_on):
    workspace, init = trained_on
    with pytest.raises(PrepError, match="not a finite number") as error:
        train_student(workspace, "nan", settings(init, learning_rate=1e30))
    assert "first query id" in str(error.value) and "nan" not in workspace.names("students")


def test_checkpoints_are_never_completed_with_random_weights(trained_on, tmp_path):
    workspace, init = trained_on
    from safetensors.torch import save_file

    broken = save_tiny("bert", tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "layer.1.attention" not in k},
        broken / "model.safetensors",
        {"format": "pt"},
    )
    for architecture in ("bert_dot", "bert_cat"):
        with pytest.raises(ModelError, match="weights missing"):
            train_student(workspace, "broken", settings(str(broken), architecture=architecture))
    with pytest.raises(ModelError, match="fewer layers"):
        train_student(workspace, "deep", settings(init, student=StudentSettings(num_layers=9)))
    with pytest.raises(ModelError):
        train_student(workspace, "none", settings(str(tmp_path / "nothing-here")))


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "hinge"},
        {"triples": None},
        {"batch_size": 0},
        {"max_steps": -1},
        {"precision": "int8"},
        {"epochs": 0.0},
        {"schedule": "step"},
        {"patience": 3},
        {"lists": "a"},
        {"agreement": -1.0},
        {"triples": None, "loss": "mnrl", "one_per_query": True},
        {"list_size": 1},
        {"micro_batch_size": 0},
        {"loss": "in_batch_kl"},
        {"in_batch_teacher": "t"},
    ],
)
def test_bad_settings(changes):
    with pytest.raises(UsageError):
        settings("x", **changes)
    with pytest.raises(UsageError):
        StudentSettings(pooling="max")
    with pytest.raises(UsageError):
        StudentSettings(query_masks=8, expand_queries=True)


def test_tk_trains_from_a_file_of_word_vectors(trained_on, tmp_path):
    workspace, _ = trained_on
    words = sorted({word for text in Texts(workspace, "passages").take(np.arange(80)) for word in text.split()})
    rng = np.random.default_rng(0)
    file = tmp_path / "vectors.txt"
    file.write_text("".join(f"{word} {' '.join(map(str, rng.normal(size=6).round(3)))}\n" for word in words))
    trained = train_student(workspace, "words", settings(str(file), architecture="tk", freeze_layers=0))
    student = load_student(str(trained.directory))
    assert student.encoder.weight.shape == (len(words) + 2, 6)
    kept = np.array([line.split()[1:] for line in file.read_text().splitlines()], np.float32)
    assert np.array_equal(student.encoder.weight.detach().numpy()[2:], kept)
    assert train_student(workspace, "words", settings(str(file), architecture="tk", freeze_layers=0)).unchanged
