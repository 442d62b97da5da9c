"""Language-model rerankers against sentence-transformers' own class; prefixes computed once change nothing."""

import logging

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import AutoTokenizer

from pipeline.errors import ModelError, UsageError
from teachers.checkpoints.checkpoint import resolve
from teachers.checkpoints.definition import Family
from teachers.engine import decoder
from teachers.engine.engine import fingerprint_of, load_scorer
from teachers.scorer import Pairs, Work
from teachers.settings import ScoringSettings
from tests.tiny_decoders import KINDS, MXBAI_TEMPLATE, QWEN3_TEMPLATE, save_decoder
from tests.tiny_models import sample_texts


def some_pairs(count=200):
    queries = [*sample_texts(18, longest=12, seed=1), "what? ", "long " * 300]
    passages = [*sample_texts(80, longest=60, seed=2), "long " * 400, "", " (x)\n", "7"]
    draw = np.random.default_rng(0)
    query = np.sort(draw.integers(0, len(queries), count)).astype(np.int32)
    return Pairs(queries, passages, query, draw.integers(0, len(passages), count).astype(np.int32))


PAIRS = some_pairs()


def library_scores(directory, limit=256, **call):
    texts = [(PAIRS.queries[q], PAIRS.passages[p]) for q, p in zip(PAIRS.query, PAIRS.passage, strict=True)]
    model = CrossEncoder(str(directory), max_length=limit, device="cpu")
    return model.predict(texts, activation_fn=torch.nn.Identity(), show_progress_bar=False, **call)


def our_scores(directory, limit=256, **settings):
    return load_scorer(str(directory), ScoringSettings(limit, device="cpu", batch_tokens=2048, **settings)).score(PAIRS)


def assert_equal(scores, expected):
    assert expected.std() > 0.01
    assert np.abs(scores - expected).max() < 1e-4 * expected.std()


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_the_librarys(kind, tmp_path):
    directory = save_decoder(kind, tmp_path)
    assert resolve(str(directory)).definition.family is Family.CAUSAL_LM
    assert_equal(our_scores(directory), library_scores(directory))


@pytest.mark.parametrize(("template", "words"), [(MXBAI_TEMPLATE, True), (QWEN3_TEMPLATE, False)])
def test_templates_and_tokenizers_that_merge_across_words(template, words, tmp_path):
    directory = save_decoder("qwen2", tmp_path, template=template, words=words)
    assert_equal(our_scores(directory, 300), library_scores(directory, 300))


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_saved_module_tells_tokens_and_prompt(side, tmp_path):
    model = CrossEncoder(str(save_decoder("qwen3", tmp_path / "plain")), device="cpu")
    ids = model.tokenizer.convert_tokens_to_ids(["no", "yes"])
    model[1].true_token_id, model[1].false_token_id = ids[0], None
    model.prompts, model.default_prompt_name = {"code": "Find code"}, "code"
    model.save_pretrained(str(tmp_path / "saved"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    tokenizer.padding_side = side
    tokenizer.save_pretrained(tmp_path / "saved")
    assert resolve(str(tmp_path / "saved")).definition.family is Family.LOGIT_SCORE
    assert_equal(our_scores(tmp_path / "saved"), library_scores(tmp_path / "saved"))
    other = our_scores(tmp_path / "saved", instruction="Find prose")
    assert_equal(other, library_scores(tmp_path / "saved", prompt="Find prose"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_of_one_label_reads_the_last_token(kind, tmp_path):
    directory = save_decoder(kind, tmp_path, labels=1)
    assert resolve(str(directory)).definition.family is Family.CHAT_CLASSIFIER
    assert_equal(our_scores(directory), library_scores(directory))


def test_prefixes_change_nothing(tmp_path, monkeypatch, caplog):
    directory = save_decoder("gemma2", tmp_path)
    with caplog.at_level(logging.WARNING):
        shared = our_scores(directory)
    assert not caplog.records
    monkeypatch.setattr(decoder, "LEAST_PAIRS_PER_PREFIX", float("inf"))
    assert_equal(our_scores(directory), shared)


def test_a_cache_that_moves_scores_is_not_used(tmp_path, monkeypatch, caplog):
    directory = save_decoder("qwen3", tmp_path)
    expected = our_scores(directory)
    cache = decoder.Prefixes.cache
    monkeypatch.setattr(decoder.Prefixes, "cache", lambda self, rows: cache(self, torch.zeros_like(rows)))
    assert_equal(our_scores(directory), expected)
    assert "they are not" in caplog.text


def test_progress_counts_every_pair_once(tmp_path):
    scorer, total = load_scorer(str(save_decoder("qwen3", tmp_path)), ScoringSettings(256, device="cpu")), Work()

    def add(work):
        nonlocal total
        total += work

    scorer.score(PAIRS, add)
    whole = int(scorer.encode(PAIRS).lengths.sum())
    assert total.pairs == 200 and 0.2 * whole < total.tokens < 0.8 * whole and total.flop > 0 and total.peak_seconds > 0


def test_a_long_prefix_is_computed_apart_from_short_ones(tmp_path, monkeypatch):
    sizes, prefixes = [], decoder.DecoderRunner._prefixes

    def counted(self, some):
        sizes.append(len(some) * max(map(len, some)))
        return prefixes(self, some)

    directory = save_decoder("qwen3", tmp_path)
    monkeypatch.setattr(decoder.DecoderRunner, "_prefixes", counted)
    our_scores(directory)
    assert max(sizes[1:]) <= 2048  # the first is the measurement at loading


def test_low_precision_is_certified(tmp_path):
    scorer = load_scorer(str(save_decoder("qwen3", tmp_path)), ScoringSettings(256, device="cpu", dtype="bfloat16"))
    scored = scorer.score_encoded(scorer.encode(PAIRS), sample=np.arange(8))
    assert 0 < scored.facts["certificate"]["max_difference"] < 0.5


def test_the_prompt_is_part_of_the_identity(tmp_path):
    settings, found = ScoringSettings(256), set()
    for number, changed in enumerate(({}, {"template": MXBAI_TEMPLATE})):
        name = str(save_decoder("qwen2", tmp_path / str(number), **changed))
        found |= {fingerprint_of(name, settings), fingerprint_of(name, ScoringSettings(256, instruction="Find code"))}
    assert len(found) == 4


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ModelError, match="without a chat template"):
        our_scores(save_decoder("qwen3", tmp_path / "none", template=None))
    base = "{% for message in messages %}{{ message.role + message.content }}{% endfor %}"
    chat = base.replace("message.content", "('' if message.role == 'query' else message.content)")
    with pytest.raises(ModelError, match="does not render the query once"):
        our_scores(save_decoder("qwen3", tmp_path / "chat", template=chat))
    plain = save_decoder("qwen3", tmp_path / "plain")
    for option in ({"backend": "openvino"}, {"compile": True}, {"token_types": "off"}, {"truncation": "only_second"}):
        with pytest.raises(UsageError, match="runs on torch"):
            our_scores(plain, **option)
    with pytest.raises(ModelError, match="the date"):
        our_scores(save_decoder("qwen3", tmp_path / "dated", template="{{ strftime_now('%d') }}" + QWEN3_TEMPLATE))
    with pytest.raises(ModelError, match="one output"):
        our_scores(save_decoder("qwen3", tmp_path / "labels", labels=2))
