"""Students as teachers: a sign of life after every batch, so that a slow machine is not taken for a hanging one."""

import numpy as np
import pytest
import torch

from students.architectures import architecture
from students.inference import scorer as scorers
from students.inference.encoded import Encoded
from students.inference.scorer import SeparateScorer
from students.settings import StudentSettings
from students.token_rows import TextRows
from teachers.scorer import Work, pairs_of
from teachers.settings import ScoringSettings
from tests.tiny_models import sample_texts, save_tiny

SHAPE = StudentSettings(max_query_tokens=8, max_passage_tokens=16)
PAIRS = pairs_of(zip(sample_texts(40, seed=1), sample_texts(40, seed=2), strict=True))


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    torch.manual_seed(0)
    init = str(save_tiny("bert", tmp_path_factory.mktemp("tiny")))
    return architecture("colbert").from_checkpoint(init, SHAPE).eval()


def scored(student, monkeypatch, chunk, stored=None):
    """Scores, the reports, and the largest number of batches between two of them."""
    monkeypatch.setattr(scorers, "PASSAGES_PER_CHUNK", chunk)
    silent, longest, inside, reports = 0, 0, False, []
    for name in ("encode_queries", "encode_passages", "interact"):
        original = getattr(type(student), name)

        def batch(*arguments, original=original, **inputs):
            nonlocal silent, longest, inside
            silent, inside, outermost = silent + (not inside), True, not inside
            longest = max(longest, silent)
            try:
                return original(student, *arguments, **inputs)
            finally:
                inside = inside and not outermost

        monkeypatch.setattr(student, name, batch)

    def report(work):
        nonlocal silent
        silent = 0
        reports.append(work)

    scorer = SeparateScorer(student, ScoringSettings(batch_tokens=64))
    queries, passages = (TextRows.of(student.tokenizer, texts) for texts in (PAIRS.queries, PAIRS.passages))
    silent = longest = 0  # loading has measured which rows may share a batch
    scores = scorer.score_rows(queries, passages, PAIRS.query, PAIRS.passage, report, stored)
    return scores, reports, longest


@pytest.mark.parametrize("chunk", [7, 4096])
def test_every_batch_is_reported(student, monkeypatch, chunk):
    scores, reports, longest = scored(student, monkeypatch, chunk)
    assert longest == 1 and len(reports) > 20
    passages = TextRows.of(student.tokenizer, PAIRS.passages)
    done = sum(reports, Work())
    assert (done.pairs, done.tokens) == (40, student.passage_frame.lengths(passages).sum())
    with torch.inference_mode():
        expected = student.score(
            [PAIRS.queries[row] for row in PAIRS.query], [PAIRS.passages[row] for row in PAIRS.passage]
        )
    assert np.allclose(scores, expected, atol=1e-4) and expected.std() > 1e-3


def test_stored_passages_are_reported_too(student, monkeypatch):
    encoded = SeparateScorer(student, ScoringSettings()).encode_passages(PAIRS.passages)
    taken: list[Encoded] = []

    def stored(ids):
        taken.append(encoded.take(torch.from_numpy(ids)))
        return taken[-1]

    _, reports, longest = scored(student, monkeypatch, 16, stored)
    assert len(taken) == 3 and longest == 1 and sum(reports, Work()).pairs == 40
    assert sum(reports, Work()).tokens > 40
