"""Teachers of every form, scored by the pipeline and compared by `verify` with the library's own class."""

import json

import numpy as np
import pytest
import torch

from jobs.checks import oracle
from jobs.checks.verify import verify
from jobs.cluster.settings import ClusterSettings
from jobs.scoring.stage import score
from jobs.scoring.teachers import Teacher
from pipeline.scores.pairs import load_pairs
from pipeline.scores.scores import read_pair_ids, read_scores, write_scores
from pipeline.tables.parts import footer_of
from students.architectures import architecture
from students.settings import StudentSettings
from teachers.settings import ScoringSettings
from tests import worlds
from tests.tiny_models import save_tiny

SETTINGS = ScoringSettings(max_length_tokens=24)
APART = {
    "bert_dot": {"normalize": True, "scale": 5.0},
    "colbert": {"projection_width": 8},
    "sparse": {},
    "prettr": {"split_layer": 1},
}
CLASSES = {"bert_dot": "SentenceTransformer", "colbert": "MultiVectorEncoder", "sparse": "SparseEncoder"}
pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")


def student(kind, directory, start):
    """A student whose limits cut most texts."""
    torch.manual_seed(5)
    settings = StudentSettings(max_query_tokens=5, max_passage_tokens=9, max_length_tokens=14, **APART[kind])
    made = architecture(kind).from_checkpoint(start, settings).eval()
    directory.mkdir()
    made.save(directory)
    facts = {"architecture": kind, "settings": {"student": vars(settings)}}
    (directory / "prep.json").write_text(json.dumps(facts))
    return str(directory)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    directory = tmp_path_factory.mktemp("world")
    workspace = worlds.paired(worlds.imported(directory))
    checkpoints = {kind: str(save_tiny(kind, directory / kind)) for kind in ("bert", "albert")}
    classifier = save_tiny("bert", directory / "own", seed=3)
    (classifier / "config_sentence_transformers.json").write_text(json.dumps({"model_type": "CrossEncoder"}))
    checkpoints["own"] = str(classifier)
    checkpoints |= {kind: student(kind, directory / f"student-{kind}", checkpoints["bert"]) for kind in APART}
    score(workspace, [Teacher(name, path, SETTINGS) for name, path in checkpoints.items()], ClusterSettings())
    return workspace, checkpoints


def test_every_form_equals_its_library(world):
    workspace, checkpoints = world
    done = verify(workspace, sample=12)
    assert not done.problems and not done.notes and done.rescored == 12 * len(checkpoints)


@pytest.mark.parametrize("teacher", ["bert", "own", *CLASSES])
def test_a_score_that_the_library_does_not_give(world, teacher):
    workspace, _ = world
    pairs, paths = load_pairs(workspace), workspace.parts("scores", teacher)
    footer, before = footer_of(paths[0]), read_scores(paths[0])
    everything = np.concatenate([read_scores(path) for path in paths])

    def rewrite(scores):
        ids = read_pair_ids(paths[0])
        write_scores(workspace, teacher, 0, pairs.footers[0], ids, scores, footer.recipe.settings, footer.extra)

    rewrite(before + np.float32(0.004 * everything.std()))
    try:
        (problem,) = verify(workspace, sample=1000).problems
    finally:
        rewrite(before)
    assert f"scores/{teacher}" in str(problem.path) and CLASSES.get(teacher, "transformers") in problem.what


def test_without_sentence_transformers_the_note_says_what_to_install(world, monkeypatch):
    workspace, checkpoints = world
    monkeypatch.setattr(oracle, "find_spec", lambda name: None)
    done = verify(workspace, sample=12)
    assert not done.problems and done.rescored == 12 * (len(checkpoints) - 4)
    assert len(done.notes) == 4 and all("prep-distillation[verify]" in note for note in done.notes)


def test_token_types_that_were_given_on_purpose_are_noted(world):
    workspace, checkpoints = world
    off = ScoringSettings(max_length_tokens=24, token_types="off")
    score(workspace, [Teacher("albert", checkpoints["albert"], off)], ClusterSettings(), overwrite=True)
    done = verify(workspace, sample=12)
    assert not done.problems
    assert done.notes == ["scores/albert compared without token types, unlike the tokenizer's default"]


def test_a_directory_names_its_class_or_shows_it(tmp_path):
    assert oracle.library_class(tmp_path) is None
    for module, expected in (("Pooling", "SentenceTransformer"), ("SpladePooling", "SparseEncoder"),
                             ("MultiVectorMask", "MultiVectorEncoder"), ("LogitScore", "CrossEncoder")):  # fmt: skip
        (tmp_path / "modules.json").write_text(json.dumps([{"type": f"x.{module}"}]))
        assert oracle.library_class(tmp_path) == expected
    (tmp_path / "config_sentence_transformers.json").write_text('{"model_type": "SparseEncoder"}')
    assert oracle.library_class(tmp_path) == "SparseEncoder"
