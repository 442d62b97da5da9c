import json

import numpy as np
import pytest
import torch

from pipeline.errors import ModelError
from students.architectures.bert_cat import BertCat
from students.architectures.bert_dot import BertDot
from students.inference.loading import architecture_of, load_student
from students.inference.scorer import SeparateScorer
from students.inference.scoring import load_student_scorer
from students.settings import StudentSettings
from students.token_rows import TextRows
from teachers.engine.engine import load_scorer
from teachers.scorer import pairs_of
from teachers.settings import ScoringSettings
from tests.tiny_models import sample_texts, save_tiny

QUERIES, PASSAGES = sample_texts(6, longest=9, seed=1), sample_texts(30, longest=50, seed=2)
PAIRS = [(q, p) for q in QUERIES for p in PASSAGES[:5]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return {kind: str(save_tiny(kind, tmp_path_factory.mktemp(kind))) for kind in ("bert", "albert", "distilbert")}


@pytest.fixture(scope="module", params=["cls", "mean", "normalized"])
def dense(request, tiny, tmp_path_factory):
    pooling, normalize = ("mean", True) if request.param == "normalized" else (request.param, None)
    settings = StudentSettings(max_passage_tokens=40, pooling=pooling, normalize=normalize, scale=1.0)
    student = BertDot.from_checkpoint(tiny["bert"], settings)
    assert student.normalize == bool(normalize)
    directory = tmp_path_factory.mktemp("dense")
    student.eval().save(directory)
    settings = {"student": vars(settings)}
    (directory / "prep.json").write_text(json.dumps({"architecture": "bert_dot", "settings": settings}))
    return student, str(directory)


def test_a_dense_student_leaves_as_a_sentence_transformer(dense):
    from sentence_transformers import SentenceTransformer

    student, directory = dense
    loaded = SentenceTransformer(directory, device="cpu")
    assert loaded.similarity_fn_name == ("cosine" if student.normalize else "dot") and loaded.max_seq_length == 40
    theirs = torch.from_numpy(loaded.encode(PASSAGES))
    ours = SeparateScorer.load(directory, ScoringSettings()).encode_passages(PASSAGES).values
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_scores_are_the_forward_pass_in_any_batching(dense):
    student, directory = dense
    expected = student.score(*zip(*PAIRS, strict=True)).detach().numpy()
    for budget in (64, 100_000):
        found = SeparateScorer.load(directory, ScoringSettings(batch_tokens=budget)).score(pairs_of(PAIRS))
        assert np.allclose(found, expected, atol=1e-4)


def test_a_batch_that_the_memory_does_not_hold_is_halved(dense, monkeypatch):
    scorer = SeparateScorer.load(dense[1], ScoringSettings())
    whole, encode = scorer.encode_passages(PASSAGES).values, scorer.student.encode_passages

    def short_of_memory(most):
        def run(**batch):
            if len(batch["input_ids"]) > most:
                raise torch.OutOfMemoryError
            return encode(**batch)

        return run

    monkeypatch.setattr(scorer.student, "encode_passages", short_of_memory(3))
    torch.testing.assert_close(scorer.encode_passages(PASSAGES).values, whole)
    monkeypatch.setattr(scorer.student, "encode_passages", short_of_memory(0))
    with pytest.raises(torch.OutOfMemoryError):
        scorer.encode_passages(PASSAGES)


@pytest.mark.parametrize("k", [1, 7, 30, 99])
def test_search_is_exact_and_breaks_ties_by_id(dense, k):
    _, directory = dense
    scorer = SeparateScorer.load(directory, ScoringSettings())
    passages = [*PASSAGES, *PASSAGES[:4]]  # ids 30 to 33 tie with 0 to 3
    scores, ids = scorer.search(QUERIES, map(scorer.encode_passages, (passages[:9], passages[9:11], passages[11:])), k)
    every = (scorer.encode_queries(QUERIES).values @ scorer.encode_passages(passages).values.T).numpy()
    assert ids.shape == (len(QUERIES), min(k, len(passages)))
    for row, (found, own) in enumerate(zip(ids, scores, strict=True)):
        assert np.allclose(own, np.sort(every[row])[::-1][:k], atol=1e-5)
        assert (np.diff(own) <= 0).all()
        tied = np.flatnonzero(np.diff(own) == 0)
        assert (found[tied] < found[tied + 1]).all()


def test_a_sentence_transformer_keeps_its_form(dense):
    student, directory = dense
    fresh = BertDot.from_checkpoint(directory, StudentSettings(scale=5.0))
    assert (fresh.pooling, fresh.normalize) == (student.pooling, student.normalize)
    assert load_student(directory).settings.max_passage_tokens == 40
    assert not BertDot.from_checkpoint(directory, StudentSettings(normalize=False)).normalize
    features = student.features(*(TextRows.of(student.tokenizer, texts) for texts in (QUERIES, PASSAGES)))
    factor = 5.0 if student.normalize else 1.0
    assert torch.allclose(fresh.eval()(**features), factor * student(**features), atol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "albert", "distilbert"])
def test_a_trained_cross_encoder_scores_as_it_trained(tiny, kind, tmp_path):
    student = BertCat.from_checkpoint(tiny[kind], StudentSettings(max_length_tokens=30)).eval()
    with torch.inference_mode():
        expected = student.score(*zip(*PAIRS, strict=True)).numpy()
    student.save(tmp_path)
    facts = {"architecture": "bert_cat", "settings": {"student": {"max_length_tokens": 30}}}
    (tmp_path / "prep.json").write_text(json.dumps(facts))
    found = load_student_scorer(str(tmp_path)).score(pairs_of(PAIRS))
    assert np.allclose(found, expected, atol=1e-4) and np.std(expected) > 1e-2


def test_a_cross_encoder_leaves_as_a_cross_encoder(tiny, tmp_path):
    from sentence_transformers import CrossEncoder

    BertCat.from_checkpoint(tiny["bert"], StudentSettings()).save(tmp_path)
    loaded = CrossEncoder(str(tmp_path), device="cpu", max_length=60)
    ours = load_scorer(str(tmp_path), ScoringSettings(max_length_tokens=60)).score(pairs_of(PAIRS))
    assert np.allclose(ours, loaded.predict(PAIRS), atol=1e-4)  # raw logits: no sigmoid


def test_architectures_are_recognised(tiny, dense):
    assert architecture_of(dense[1]) == "bert_dot" and architecture_of(tiny["bert"]) == "bert_cat"
    with pytest.raises(ModelError, match="together"):
        SeparateScorer.load(tiny["bert"], ScoringSettings())


def test_layers_can_be_cut(tiny):
    cut = BertDot.from_checkpoint(tiny["distilbert"], StudentSettings(num_layers=1))
    assert len(cut.encoder.transformer.layer) == 1
