"""Saved students cut long texts where they were trained to, in the libraries' own classes with no option given."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from jobs.models.token_stores import _tokenizer_identity
from pipeline.errors import ModelError, UsageError
from students.architectures import architecture
from students.inference.scorer import SeparateScorer
from students.inference.scoring import load_student_scorer
from students.settings import StudentSettings, TrainSettings
from students.training.loop import check_start
from teachers.checkpoints.checkpoint import resolve
from teachers.scorer import pairs_of
from teachers.settings import ScoringSettings
from tests.tiny_models import POSITIONS, sample_texts, save_tiny

QUERIES, PASSAGES = sample_texts(6, longest=30, seed=1), sample_texts(6, longest=50, seed=2)
ROWS = list(zip(QUERIES, PASSAGES, strict=True))
LIMITS = {"max_query_tokens": 7, "max_passage_tokens": 15, "max_length_tokens": 21}
SEPARATE = {
    "bert_dot": ("SentenceTransformer", {}),
    "bert_dot unit": ("SentenceTransformer", {"normalize": True, "pooling": "mean"}),
    "colbert": ("MultiVectorEncoder", {}),
    "colbert marked": ("MultiVectorEncoder", {"query_marker": "[Q]", "passage_marker": "[D]", "normalize": True}),
    "colbert filled": ("MultiVectorEncoder", {"expand_queries": True}),
    "sparse": ("SparseEncoder", {}),
}


def made(kind, start, directory, **options):
    torch.manual_seed(3)
    settings = StudentSettings(**{**LIMITS, **options})
    student = architecture(kind.split()[0]).from_checkpoint(str(start), settings).eval()
    directory.mkdir(exist_ok=True)
    student.save(directory)
    facts = {"architecture": student.name, "settings": {"student": vars(settings)}}
    (directory / "prep.json").write_text(json.dumps(facts))
    return student, str(directory)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiny")
    made = {kind: save_tiny(kind, directory / kind) for kind in ("bert", "albert", "roberta", "distilbert")}
    undeclared = json.loads((made["albert"] / "tokenizer_config.json").read_text())
    del undeclared["model_input_names"]
    (made["albert"] / "tokenizer_config.json").write_text(json.dumps(undeclared))
    (made["albert"] / "config.json").write_text(
        (made["albert"] / "config.json").read_text().replace('"transformers_version": "5', '"transformers_version": "4')
    )
    return made


@pytest.mark.parametrize("kind", ["bert", "albert", "roberta", "distilbert"])
@torch.inference_mode()
def test_cross_encoders(kind, tiny, tmp_path):
    peer = pytest.importorskip("sentence_transformers")
    student, directory = made("bert_cat", tiny[kind], tmp_path / "saved")
    expected = student.score(*zip(*ROWS, strict=True)).numpy()
    longer, _ = made("bert_cat", tiny[kind], tmp_path / "other", max_length_tokens=50)
    assert np.abs(longer.score(*zip(*ROWS, strict=True)).numpy() - expected).max() > 1e-2  # the limit shows
    loaded = peer.CrossEncoder(directory, device="cpu")
    assert np.allclose(loaded.predict(ROWS, show_progress_bar=False), expected, atol=1e-4)
    assert np.allclose(load_student_scorer(directory).score(pairs_of(ROWS)), expected, atol=1e-4)
    model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    plain = [model(**tokenizer(*row, truncation=True, return_tensors="pt")).logits.item() for row in ROWS]
    assert np.allclose(plain, expected, atol=1e-4)


@pytest.mark.parametrize("kind", SEPARATE)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@torch.inference_mode()
def test_separate_students(kind, tiny, tmp_path):
    peer, (name, options) = pytest.importorskip("sentence_transformers"), SEPARATE[kind]
    student, directory = made(kind, tiny["bert"], tmp_path / "saved", **options)
    ours = torch.stack([student.score([query] * 6, PASSAGES) for query in QUERIES])
    loaded = getattr(peer, name)(directory, device="cpu")
    theirs = loaded.similarity(loaded.encode_query(QUERIES), loaded.encode_document(PASSAGES))
    assert torch.allclose(theirs.float().cpu(), ours, atol=1e-4 * float(ours.std()), rtol=1e-4)
    other, _ = made(kind, tiny["bert"], tmp_path / "other", **options, max_query_tokens=12)
    assert (torch.stack([other.score([query] * 6, PASSAGES) for query in QUERIES]) - ours).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["prettr", "tk"])
def test_forms_of_our_own_carry_the_limit_too(kind, tiny, tmp_path):
    _, directory = made(kind, tiny["bert"], tmp_path / "saved", split_layer=1)
    assert AutoTokenizer.from_pretrained(directory, config=None).model_max_length == LIMITS["max_passage_tokens"]


@pytest.mark.parametrize(
    ("kind", "start", "limits"),
    [
        ("bert_cat", "bert", {"max_length_tokens": POSITIONS + 1}),
        ("bert_cat", "roberta", {"max_length_tokens": POSITIONS + 1}),
        ("bert_dot", "bert", {"max_passage_tokens": POSITIONS + 1}),
        ("bert_dot", "distilbert", {"max_query_tokens": POSITIONS + 1}),
        ("colbert", "bert", {"max_query_tokens": POSITIONS - 1, "query_masks": 2}),
        ("sparse", "bert", {"max_passage_tokens": POSITIONS + 1}),
    ],
)
def test_training_refuses_more_tokens_than_positions_at_its_start(kind, start, limits, tiny, tmp_path):
    fits = {name: min(value, POSITIONS) for name, value in {**LIMITS, **limits}.items()} | {"query_masks": 0}
    for settings, refused in ((fits, False), ({**LIMITS, **limits}, True)):
        student, directory = made(kind, tiny[start], tmp_path / "saved", **settings)
        train = TrainSettings(kind, str(tiny[start]), "ranknet", None, student=student.settings)
        if not refused:
            check_start(student, train)
            continue
        with pytest.raises(ModelError, match=f"expected: {POSITIONS} tokens or less"):
            check_start(student, train)
        if kind != "bert_cat":
            with pytest.raises(ModelError, match="exceeds the encoder's positions"):
                SeparateScorer.load(directory, ScoringSettings())


def test_a_limit_as_long_as_the_positions_is_scored(tiny, tmp_path):
    student, _ = made("bert_dot", tiny["bert"], tmp_path / "saved", max_passage_tokens=POSITIONS)
    assert torch.isfinite(student.score(["ice"], ["water " * 99])).all()


@pytest.mark.parametrize("kind", ["bert_cat", "bert_dot", "colbert", "prettr", "tk"])
def test_layers_are_not_cut_in_silence_where_they_cannot_be(kind, tiny, tmp_path):
    """A student saved in a published form, which has no configuration of its own to cut."""
    _, directory = made(kind, tiny["distilbert"], tmp_path / "saved", split_layer=1)
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    if kind in ("bert_cat", "bert_dot", "colbert"):
        kept = {key: config[key] for key in ("dim", "n_heads")}
        names = {"bert_cat": "BERT_Cat", "bert_dot": "BERT_Dot", "colbert": "ColBERT"}
        (tmp_path / "saved" / "config.json").write_text(json.dumps({"model_type": names[kind], **kept}))
    with pytest.raises(UsageError, match="--num-layers has no effect"):
        architecture(kind).from_checkpoint(directory, StudentSettings(**LIMITS, num_layers=1, split_layer=1))


def test_students_of_one_start_share_a_store_of_tokens_whatever_their_limits(tiny, tmp_path):
    found = set()
    for number, limits in enumerate(({}, {"max_passage_tokens": 33})):
        _, directory = made("bert_dot", tiny["bert"], tmp_path / str(number), **limits)
        found.add(_tokenizer_identity(resolve(directory)))
    other, _ = made("colbert", tiny["bert"], tmp_path / "marked", query_marker="[Q]")
    other.tokenizer.add_tokens(["[Q]"])
    other.save(tmp_path / "marked")
    assert len(found) == 1 and _tokenizer_identity(resolve(str(tmp_path / "marked"))) not in found
