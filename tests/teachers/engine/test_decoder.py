"""Language-model rerankers against sentence-transformers' own class; prefixes computed once change nothing."""

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import AutoTokenizer

from teachers.checkpoints.checkpoint import resolve
from teachers.checkpoints.language_model import ScoredTokens, load_language_model
from teachers.engine import decoder
from teachers.engine.decoder import Decoder
from teachers.scorer import Pairs
from teachers.tokens.pair_prompt import read_prompt
from teachers.tokens.prompted_pairs import PromptTokenizer
from tests.tiny_decoders import KINDS, MXBAI_TEMPLATE, QWEN3_TEMPLATE, save_decoder
from tests.tiny_models import sample_texts

CPU = torch.device("cpu")


def some_pairs(count=200):
    queries = [*sample_texts(18, longest=12, seed=1), "what? ", "long " * 300]
    passages = [*sample_texts(80, longest=60, seed=2), "long " * 400, "", " (x)\n", "7"]
    draw = np.random.default_rng(0)
    query = np.sort(draw.integers(0, len(queries), count)).astype(np.int32)
    return Pairs(queries, passages, query, draw.integers(0, len(passages), count).astype(np.int32))


def library_scores(directory, pairs, limit):
    texts = [(pairs.queries[q], pairs.passages[p]) for q, p in zip(pairs.query, pairs.passage, strict=True)]
    model = CrossEncoder(str(directory), max_length=limit, device="cpu")
    return model.predict(texts, activation_fn=torch.nn.Identity(), show_progress_bar=False)


def our_scores(directory, pairs, limit, ids=("yes", "no"), budget=2048):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    encoded = PromptTokenizer(tokenizer, read_prompt(tokenizer, None), limit).encode(pairs)
    tokens = None if ids is None else ScoredTokens(*tokenizer.convert_tokens_to_ids(list(ids)))
    model = Decoder(load_language_model(resolve(str(directory)), tokens), torch.float32, CPU)
    return model.scores(encoded, np.arange(len(pairs.query)), budget)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_the_librarys(kind, tmp_path):
    directory = save_decoder(kind, tmp_path / kind)
    pairs = some_pairs()
    expected = library_scores(directory, pairs, 256)
    assert expected.std() > 0.01
    assert np.abs(our_scores(directory, pairs, 256) - expected).max() < 1e-4 * expected.std()


@pytest.mark.parametrize(("template", "words"), [(MXBAI_TEMPLATE, True), (QWEN3_TEMPLATE, False)])
def test_templates_and_tokenizers_that_merge_across_words(template, words, tmp_path):
    directory = save_decoder("qwen2", tmp_path / "model", template=template, words=words)
    pairs = some_pairs()
    expected = library_scores(directory, pairs, 300)
    assert np.abs(our_scores(directory, pairs, 300) - expected).max() < 1e-4 * expected.std()


@pytest.mark.parametrize("kind", KINDS)
def test_prefixes_change_nothing(kind, tmp_path, monkeypatch):
    directory = save_decoder(kind, tmp_path / kind)
    pairs = some_pairs()
    shared = our_scores(directory, pairs, 256)
    monkeypatch.setattr(decoder, "LEAST_PAIRS_PER_PREFIX", float("inf"))
    alone = our_scores(directory, pairs, 256, budget=1)
    assert np.abs(shared - alone).max() < 1e-4 * alone.std()


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_of_one_label_reads_the_last_token(kind, tmp_path):
    directory = save_decoder(kind, tmp_path / kind, labels=1)
    pairs = some_pairs()
    expected = library_scores(directory, pairs, 256)
    assert np.abs(our_scores(directory, pairs, 256, ids=None) - expected).max() < 1e-4 * expected.std()
