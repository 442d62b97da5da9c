"""Students that read query and passage apart, as teachers."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from transformers import AutoModel, AutoTokenizer

from jobs.checks.status import workspace_status
from jobs.checks.verify import verify
from jobs.cluster.settings import ClusterSettings
from jobs.ranking.encode import encode_passages
from jobs.scoring.estimate import estimate
from jobs.scoring.shard import ShardScorer, pairs_with_texts
from jobs.scoring.stage import plan_scoring, score
from jobs.scoring.teachers import Teacher
from jobs.training.stage import train_student
from pipeline import schemas
from pipeline.collection.texts import Texts
from pipeline.errors import ModelError, UsageError, WorkspaceError
from pipeline.scores.pairs import load_pairs
from pipeline.scores.scores import load_scores, read_pair_ids, read_scores, write_scores
from pipeline.tables.parts import footer_of, read_part
from pipeline.triples.build import TripleSettings, build_triples
from pipeline.triples.sets import load_triples
from students.inference.loading import load_student
from students.inference.scorer import SeparateScorer
from students.settings import STUDENT_FILE, StudentSettings, TrainSettings
from teachers.checkpoints import checkpoint as checkpoints
from teachers.engine.certificate import LEAST_TAU, certify
from teachers.scorer import Work
from teachers.settings import ScoringSettings
from tests import worlds
from tests.tiny_models import save_tiny

TINY = StudentSettings(max_query_tokens=8, max_passage_tokens=16, max_length_tokens=24, normalize=True, scale=5.0)
SHAPES = {
    "bert_dot": TINY,
    "colbert": replace(TINY, query_masks=2),
    "sparse": TINY,
    "prettr": replace(TINY, split_layer=1),
    "tk": replace(TINY, tk_inner=16),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    directory = tmp_path_factory.mktemp("apart")
    workspace = worlds.paired(worlds.imported(directory))
    return workspace, str(save_tiny("bert", directory / "tiny"))


def student(world, architecture):
    workspace, init = world
    settings = TrainSettings(architecture, init, "ranknet", student=SHAPES[architecture], max_steps=2, batch_size=4)
    train_student(workspace, architecture, settings)
    return str(workspace.path("students", architecture))


def run(workspace, name, checkpoint, **options):
    done = []
    teacher = Teacher(name, checkpoint, ScoringSettings(**options))
    scored = score(workspace, [teacher], ClusterSettings(), on_progress=done.append)
    return scored, sum(done, Work())


def test_a_loaded_teacher_reports_before_it_works_and_a_certificate_is_no_silence(world, monkeypatch):
    workspace, checkpoint = world[0], student(world, "bert_dot")
    teacher = Teacher("signs", checkpoint, ScoringSettings(dtype="bfloat16"))
    tasks = plan_scoring(workspace, [teacher]).tasks[:2]
    worker, reports, made = ShardScorer(workspace.location), ([], []), []

    def certified(*scores):
        made.append(len(reports[0]))
        return certify(*scores)

    monkeypatch.setattr("students.inference.teaching.certify", certified)
    for task, own in zip(tasks, reports, strict=True):
        worker.score(task, own.append)
    shutil.rmtree(workspace.path("scores", "signs"))
    # Loading is silent; a teacher in memory reports at once.
    assert [own[0] == Work() for own in reports] == [False, True]
    counted = np.cumsum([work.pairs for work in reports[0]])
    assert counted[-1] == tasks[0].pairs and made[0] > np.searchsorted(counted, tasks[0].pairs) + 1


@pytest.mark.parametrize("architecture", SHAPES)
def test_every_pair_gets_the_score_that_training_saw(world, architecture):
    workspace, checkpoint = world[0], student(world, architecture)
    scored, done = run(workspace, architecture, checkpoint)
    pairs, loaded = load_pairs(workspace), load_student(checkpoint)
    assert scored.pairs == done.pairs == pairs.pairs and done.tokens > done.pairs
    scores = load_scores(workspace, pairs, architecture)
    assert scores.footers[0].extra["scale"] == (5.0 if architecture in ("bert_dot", "colbert") else 1.0)
    ids = read_pair_ids(pairs.paths[0])
    texts = pairs_with_texts(ids, Texts(workspace, "queries"), Texts(workspace, "passages"))
    expected = [
        loaded.score([texts.queries[query]], [texts.passages[passage]]).item() * loaded.training_scale
        for query, passage in zip(texts.query, texts.passage, strict=True)
    ]
    assert np.allclose(read_scores(scores.paths[0]), expected, atol=1e-4)
    assert run(workspace, architecture, checkpoint)[0].pairs == 0
    states = {stage.name: stage.detail for stage in workspace_status(workspace)}
    assert "query and passage apart" in states[f"scores/{architecture}"]


def test_passages_that_are_stored_are_not_encoded_again(world, monkeypatch):
    workspace, checkpoint = world[0], student(world, "colbert")
    run(workspace, "fresh", checkpoint)
    expected = [read_scores(path) for path in workspace.parts("scores", "fresh")]
    encode_passages(workspace, "colbert", checkpoint, storage="float32")
    shutil.rmtree(workspace.path("scores", "fresh"))
    for name in workspace.names("scores"):  # nothing of the same model to be found again
        if name == "colbert":
            shutil.rmtree(workspace.path("scores", name))
    monkeypatch.setattr(SeparateScorer, "encode_passage_rows", lambda *_: pytest.fail("they are stored"))
    assert run(workspace, "fresh", checkpoint)[0].pairs == load_pairs(workspace).pairs
    found = [read_scores(path) for path in workspace.parts("scores", "fresh")]
    assert all(np.allclose(one, other, atol=1e-4) for one, other in zip(found, expected, strict=True))


def test_its_files_are_read_by_the_run_not_by_the_shard(world, tmp_path, monkeypatch):
    resolved, locate = [], checkpoints._locate
    monkeypatch.setattr(checkpoints, "_locate", lambda *args: resolved.append(args) or locate(*args))
    shutil.copytree(student(world, "bert_dot"), tmp_path / "other")
    file = tmp_path / "other" / STUDENT_FILE
    file.write_text(file.read_text().replace('"scale": 5.0', '"scale": 9.0'))
    resolved.clear()
    scored, _ = run(world[0], "other", str(tmp_path / "other"))
    assert scored.shards > 4 and len(resolved) <= 5  # planned, loaded, and three times by the student's architecture


def test_verify_scores_a_sample_again(world, tmp_path):
    run(world[0], "bert_dot", student(world, "bert_dot"))
    shutil.copytree(world[0].root, tmp_path / "ws")
    workspace = type(world[0]).open(str(tmp_path / "ws"))
    assert not verify(workspace, sample=20).problems
    pairs = load_pairs(workspace)
    (path, footer), ids = footer_and_path(workspace), read_pair_ids(pairs.paths[0])
    off = read_scores(path) + np.float32(1)
    write_scores(workspace, "bert_dot", 0, pairs.footers[0], ids, off, footer.recipe.settings, footer.extra)
    (problem,) = verify(workspace, sample=pairs.pairs).problems
    assert "differ from those of sentence-transformers' SentenceTransformer" in problem.what


def footer_and_path(workspace):
    path = workspace.parts("scores", "bert_dot")[0]
    return path, footer_of(path)


def test_another_scale_is_another_teacher(world, tmp_path):
    checkpoint = tmp_path / "scaled"
    shutil.copytree(student(world, "bert_dot"), checkpoint)
    run(world[0], "scaled", str(checkpoint))
    file = checkpoint / STUDENT_FILE
    file.write_text(file.read_text().replace('"scale": 5.0', '"scale": 7.0'))
    with pytest.raises(WorkspaceError, match="another model or other settings"):
        run(world[0], "scaled", str(checkpoint))


def test_beside_a_cross_encoder_in_an_ensemble(world, tmp_path):
    workspace = world[0]
    run(workspace, "cat", str(save_tiny("bert", tmp_path / "cat")), max_length_tokens=24)
    run(workspace, "bert_dot", student(world, "bert_dot"))
    build_triples(workspace, TripleSettings(None, ensemble="zscore"), teachers=["cat", "bert_dot"])
    (path, *_), footers = load_triples(workspace, "default")
    assert sorted(footers[0].recipe.settings["teachers"]) == ["bert_dot", "cat"]
    assert read_part(path, schemas.TRIPLES)[0].column("margin_std").to_numpy().max() > 0


def test_a_low_precision_leaves_its_certificate(world, monkeypatch):
    monkeypatch.setitem(LEAST_TAU, "bfloat16", 0.5)  # random weights rank by little
    monkeypatch.setattr("teachers.engine.certificate.LARGEST_MEAN_SHARE", 1.0)
    run(world[0], "half", student(world, "colbert"), dtype="bfloat16")
    certificate = footer_of(world[0].parts("scores", "half")[0]).extra["certificate"]
    assert certificate["pairs"] > 10 and 0 < certificate["max_difference"] < 1


def test_a_directory_of_sentence_transformers_is_a_teacher(world, tmp_path):
    shutil.copytree(student(world, "bert_dot"), tmp_path / "published")
    (tmp_path / "published" / STUDENT_FILE).unlink()
    run(world[0], "published", str(tmp_path / "published"))
    footer = load_scores(world[0], load_pairs(world[0]), "published").footers[0]
    assert (footer.extra["form"], footer.extra["scale"]) == ("bert_dot", 20.0)


def test_what_a_teacher_cannot_be(world, tmp_path):
    bare = tmp_path / "bare"
    AutoModel.from_pretrained(world[1]).save_pretrained(bare)
    AutoTokenizer.from_pretrained(world[1]).save_pretrained(bare)
    with pytest.raises(ModelError, match="classifier"):  # nobody says that it is a bi-encoder
        run(world[0], "bare", str(bare), max_length_tokens=24)
    for compiled in ({"compile": True}, {"backend": "openvino"}):
        with pytest.raises(UsageError, match="only cross-encoders"):
            run(world[0], "fast", student(world, "bert_dot"), **compiled)


def test_an_estimate_measures_it(world):
    (found,) = estimate(
        world[0], [Teacher("new", student(world, "sparse"), ScoringSettings(dtype="bfloat16"))], ClusterSettings()
    )
    assert found.pairs == load_pairs(world[0]).pairs and found.tokens > 0 and found.hours > 0
