"""The engine's scores against plain transformers, one pair at a time."""

from __future__ import annotations

import dataclasses
import inspect
import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from pipeline.errors import InputError, ModelError, UsageError
from pipeline.tokens.pairs import TokenBatch
from teachers.checkpoints.loading import quiet_loading
from teachers.engine import certificate
from teachers.engine.engine import CrossEncoderScorer, ScoringSettings, fingerprint_of, load_scorer
from teachers.engine.torch_model import Logits
from teachers.scorer import Pairs, Work, pairs_of
from teachers.settings import Dtype
from teachers.tokens import pair_tokenizer
from teachers.tokens.pair_tokenizer import template_of
from tests.tiny_models import POSITIONS, Kind, sample_texts, save_tiny

LIMIT = 40
SETTINGS = ScoringSettings(max_length_tokens=LIMIT, batch_tokens=1024)
Tiny = Callable[[Kind], Path]


@cache
def texts(count: int) -> list[tuple[str, str]]:
    """Pairs with truncated ones, long queries, and empty and blank texts among them."""
    draw = random.Random(3)
    queries = sample_texts(count // 8, longest=8, seed=1) + sample_texts(8, longest=60, seed=2) + ["", "[SEP] ice"]
    passages = [*sample_texts(count, longest=45, seed=3), "", "", " ", "ﬁn 日本 [PAD] <s>"]
    some = [(draw.choice(queries), draw.choice(passages)) for _ in range(count - 6)]
    return [
        ("what is ice", ""),
        ("what is ice", " "),
        ("", ""),
        ("", "ice"),
        ("ice " * 60, ""),
        *some,
        some[0],
    ]


def oracle(directory: Path, rows: list[tuple[str, str]], limit: int = LIMIT) -> NDArray[np.float32]:
    with quiet_loading():
        model = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(directory)
    takes = inspect.signature(model.forward).parameters
    logits = []
    with torch.inference_mode():
        for query, passage in rows:
            call = tokenizer(query, passage, truncation="longest_first", max_length=limit, return_tensors="pt")
            logits.append(model(**{name: ids for name, ids in call.items() if name in takes}).logits.item())
    return np.array(logits, np.float32)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("bert", 500),
        ("albert", 500),
        ("distilbert", 500),
        ("roberta", 500),
        ("electra", 100),
        ("modernbert", 100),
    ],
)
def test_scores_are_those_of_transformers_pair_by_pair(tiny: Tiny, kind: Kind, count: int) -> None:
    rows = texts(count)
    progress: list[Work] = []
    scorer = load_scorer(str(tiny(kind)), SETTINGS)
    scores = scorer.score(pairs_of(rows), progress.append)
    expected = oracle(tiny(kind), rows)
    assert scores.dtype == np.float32
    assert expected.std() > 0.1
    np.testing.assert_allclose(scores, expected, atol=1e-4, rtol=0)
    assert sum(progress, Work()).pairs == len(rows)
    assert len(progress) > 5


@pytest.mark.parametrize("kind", ["bert", "albert", "electra"])
def test_the_oracle_notices_missing_token_types(tiny: Tiny, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = texts(100)
    monkeypatch.setattr(pair_tokenizer, "template_of", lambda t, _: template_of(t, with_types=False))
    monkeypatch.setattr(pair_tokenizer.PairTokenizer, "_agrees", lambda _: True)
    scores = load_scorer(str(tiny(kind)), SETTINGS).score(pairs_of(rows))
    assert np.abs(scores - oracle(tiny(kind), rows)).max() > 0.1


@pytest.mark.parametrize("kind", ["bert", "albert", "distilbert", "roberta"])
def test_the_oracle_notices_one_token_too_few(tiny: Tiny, kind: Kind) -> None:
    rows = texts(100)
    scorer = load_scorer(str(tiny(kind)), dataclasses.replace(SETTINGS, max_length_tokens=LIMIT - 1))
    assert np.abs(scorer.score(pairs_of(rows)) - oracle(tiny(kind), rows)).max() > 0.1


def test_the_batch_budget_changes_rounding_only(tiny: Tiny) -> None:
    pairs = pairs_of(texts(200))
    few, many = (
        load_scorer(str(tiny("roberta")), dataclasses.replace(SETTINGS, batch_tokens=budget)) for budget in (1, 10**6)
    )
    np.testing.assert_allclose(few.score(pairs), many.score(pairs), atol=1e-4, rtol=0)
    assert few.fingerprint == many.fingerprint


def test_the_same_plan_gives_the_same_bits(tiny: Tiny) -> None:
    pairs = pairs_of(texts(200))
    first, second = (load_scorer(str(tiny("bert")), SETTINGS).score(pairs) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_bfloat16_comes_near_and_its_logits_are_not_rounded(tiny: Tiny) -> None:
    pairs = pairs_of(texts(200))
    exact = load_scorer(str(tiny("bert")), SETTINGS).score(pairs)
    half = load_scorer(str(tiny("bert")), dataclasses.replace(SETTINGS, dtype="bfloat16")).score(pairs)
    assert 0 < np.abs(half - exact).max() < 0.2
    assert (half != torch.from_numpy(half).bfloat16().float().numpy()).mean() > 0.9


def test_the_head_of_a_model_that_runs_as_it_is_stays_float32(tiny: Tiny) -> None:
    scorer = load_scorer(str(tiny("modernbert")), dataclasses.replace(SETTINGS, dtype="bfloat16"))
    scores = scorer.score(pairs_of(texts(200)))
    assert scorer.describe()["last_layer"] == "all tokens"
    assert (scores != torch.from_numpy(scores).bfloat16().float().numpy()).mean() > 0.9


def test_a_low_precision_is_certified_on_a_sample(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(certificate.LEAST_TAU, "bfloat16", 0.98)  # random weights rank by little
    rows = texts(300)
    scorer = load_scorer(str(tiny("electra")), dataclasses.replace(SETTINGS, dtype="bfloat16"))
    encoded, sample = scorer.encode(pairs_of(rows)), np.arange(0, 300, 2)
    scores, facts = scorer.score_encoded(encoded, sample=sample)
    exact = oracle(tiny("electra"), rows)[sample]
    assert facts["certificate"]["pairs"] == 150 and facts["certificate"]["kendall_tau"] > 0.98
    assert facts["certificate"]["mean_difference"] == pytest.approx(np.abs(scores[sample] - exact).mean(), rel=1e-3)
    scorer._built = load_scorer(str(tiny("electra")), SETTINGS)._built
    scorer._built.runner.running.start = lambda batch: lambda: Logits(np.ones(len(batch.input_ids), np.float32), 0.0)  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="stray too far from float32"):
        scorer.score_encoded(encoded, sample=sample)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_a_batch_too_large_for_the_memory_is_halved(
    tiny: Tiny, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, done = pairs_of(texts(200)), Work()
    scorer = load_scorer(str(tiny("bert")), SETTINGS)
    expected = load_scorer(str(tiny("bert")), dataclasses.replace(SETTINGS, batch_tokens=256)).score(rows)
    start, limit = scorer._built.runner.running.start, 256

    def small_memory(batch: TokenBatch) -> Callable[[], Logits]:
        if batch.input_ids.size > limit:
            raise error("no memory left")
        return start(batch)

    def add(work: Work) -> None:
        nonlocal done
        done += work

    monkeypatch.setattr(scorer._built.runner.running, "start", small_memory)
    scores, facts = scorer.score_encoded(scorer.encode(rows), add)
    assert np.array_equal(scores, expected) and facts == {"batch_tokens": 256} and done.pairs == 200
    limit = 1
    with pytest.raises(error):
        scorer.score(rows)


@pytest.mark.parametrize(("dtype", "near"), [("float32", 1e-4), ("bfloat16", 0.3), ("int8", 0.6)])
def test_openvino_gives_the_same_scores(tiny: Tiny, dtype: Dtype, near: float) -> None:
    pytest.importorskip("openvino", exc_type=ImportError)
    rows = texts(120)
    scorer = load_scorer(str(tiny("albert")), dataclasses.replace(SETTINGS, dtype=dtype, backend="openvino"))
    difference = np.abs(scorer.score(pairs_of(rows)) - oracle(tiny("albert"), rows))
    assert (dtype == "float32" or difference.max() > 1e-4) and difference.max() < near
    assert scorer.describe()["last_layer"] == "first token"


def test_no_pairs_give_no_scores(tiny: Tiny) -> None:
    scores = load_scorer(str(tiny("bert")), SETTINGS).score(pairs_of([]))
    assert scores.shape == (0,)
    assert scores.dtype == np.float32


def test_the_fingerprint_needs_no_model_and_covers_what_shapes_scores(tiny: Tiny, tmp_path: Path) -> None:
    directory = str(tiny("bert"))
    scorer = load_scorer(directory, SETTINGS)
    assert scorer.fingerprint == fingerprint_of(directory, SETTINGS)
    cased = save_tiny("bert", tmp_path / "cased")
    tokenizer = (cased / "tokenizer.json").read_text()
    (cased / "tokenizer.json").write_text(tokenizer.replace('"lowercase": true', '"lowercase": false'))
    variants = [
        fingerprint_of(directory, dataclasses.replace(SETTINGS, max_length_tokens=41)),
        fingerprint_of(directory, dataclasses.replace(SETTINGS, truncation="only_second")),
        fingerprint_of(directory, dataclasses.replace(SETTINGS, dtype="bfloat16")),
        fingerprint_of(str(save_tiny("bert", tmp_path / "other weights", seed=1)), SETTINGS),
        fingerprint_of(str(save_tiny("bert", tmp_path / "other words", vocab_from=sample_texts(9))), SETTINGS),
        fingerprint_of(str(cased), SETTINGS),
        scorer.fingerprint,
    ]
    assert len(set(variants)) == len(variants)
    copy = save_tiny("bert", tmp_path / "same content elsewhere")
    assert fingerprint_of(str(copy), SETTINGS) == scorer.fingerprint


def test_it_describes_itself_for_a_footer(tiny: Tiny) -> None:
    facts = load_scorer(str(tiny("albert")), SETTINGS).describe()
    assert facts["tokenizer"] == "AlbertTokenizer"
    assert facts["token_types"] is True
    assert facts["activation"] == "identity"
    assert facts["revision"] is None
    assert facts["max_length_tokens"] == LIMIT
    assert facts["batch_tokens"] == 1024


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert"])
def test_more_tokens_than_positions_are_refused(tiny: Tiny, kind: Kind) -> None:
    full = load_scorer(str(tiny(kind)), dataclasses.replace(SETTINGS, max_length_tokens=POSITIONS))
    rows = [("ice " * 50, "water " * 50), ("ice", "water")]
    np.testing.assert_allclose(full.score(pairs_of(rows)), oracle(tiny(kind), rows, POSITIONS), atol=1e-4, rtol=0)
    with pytest.raises(ModelError, match=f"expected: {POSITIONS} or less"):
        load_scorer(str(tiny(kind)), dataclasses.replace(SETTINGS, max_length_tokens=POSITIONS + 1))


def test_a_limit_without_room_for_text_is_refused(tiny: Tiny) -> None:
    with pytest.raises(UsageError, match="6 or more: 4 special tokens"):
        load_scorer(str(tiny("roberta")), dataclasses.replace(SETTINGS, max_length_tokens=5))


def test_only_second_names_the_pair_it_cannot_fit(tiny: Tiny) -> None:
    scorer = load_scorer(str(tiny("bert")), dataclasses.replace(SETTINGS, truncation="only_second"))
    assert np.isfinite(scorer.score(pairs_of([("ice", "water " * 60)]))).all()
    with pytest.raises(InputError, match=r"pair 1 \(from 0\)"):
        scorer.score(pairs_of([("ice", "water"), ("ice " * 60, "water")]))


def test_logits_that_are_not_finite_are_never_returned(tmp_path: Path, tiny: Tiny) -> None:
    scorer = load_scorer(str(tiny("bert")), SETTINGS)
    running = scorer._built.runner.running
    start = running.start
    running.start = lambda batch: lambda: start(batch)()._replace(values=np.array([np.inf], np.float32))  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="1 of 1, the first at pair 0"):
        scorer.score(pairs_of([("ice", "water")]))
    directory = save_tiny("distilbert", tmp_path)
    weights = load_file(directory / "model.safetensors")
    weights["classifier.bias"][:] = float("inf")
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="not finite"):
        load_scorer(str(directory), SETTINGS)


def test_a_tokenizer_of_another_model_is_noticed(tmp_path: Path) -> None:
    directory = save_tiny("bert", tmp_path / "model", vocab_from=["ice water"])
    assert AutoConfig.from_pretrained(directory).vocab_size < 50
    save_tiny("distilbert", tmp_path / "other")
    (directory / "tokenizer.json").write_bytes((tmp_path / "other" / "tokenizer.json").read_bytes())
    with pytest.raises(ModelError, match="ids beyond its embeddings"):
        load_scorer(str(directory), SETTINGS).score(pairs_of([("what is ice", "steam rises")]))


class Called:
    """Counts calls of the tokenizer for whole pairs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pairs = 0
        original = pair_tokenizer.CalledPairs

        def counting(tokenizer: object, pairs: Pairs, **rest: object) -> object:
            self.pairs += len(pairs.query)
            return original(tokenizer, pairs, **rest)  # type: ignore[arg-type]

        monkeypatch.setattr(pair_tokenizer, "CalledPairs", counting)


@pytest.mark.parametrize("side", ["truncation_side", "padding_side"])
def test_a_tokenizer_that_works_from_the_left_is_followed(
    tmp_path: Path, side: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Left truncation goes through the tokenizer's own pair call; left padding is avoided."""
    directory = save_tiny("bert", tmp_path)
    config = directory / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {side: "left"}))
    scorer: CrossEncoderScorer = load_scorer(str(directory), SETTINGS)
    called = Called(monkeypatch)
    masks: list[object] = []
    running = scorer._built.runner.running
    start = running.start
    monkeypatch.setattr(running, "start", lambda batch: masks.append(batch.attention_mask) or start(batch))
    rows = texts(60)
    np.testing.assert_allclose(scorer.score(pairs_of(rows)), oracle(directory, rows), atol=1e-4, rtol=0)
    if side == "truncation_side":
        assert called.pairs == len(rows)
        assert "calling it for every pair" in caplog.text
    else:
        assert called.pairs == 0
        assert not caplog.text
        assert set(masks) == {None}
