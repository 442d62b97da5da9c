"""Models whose scores move with the padding of their batch, against transformers' own call of one pair at a time."""

from __future__ import annotations

import inspect
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from pipeline.errors import ModelError
from teachers.checkpoints.checkpoint import fingerprint_of
from teachers.checkpoints.loading import quiet_loading
from teachers.engine import padding
from teachers.engine.engine import load_scorer
from teachers.scorer import pairs_of
from teachers.settings import ScoringSettings
from tests.tiny_models import randomise, sample_texts, tiny_tokenizer

SETTINGS = ScoringSettings(max_length_tokens=40, batch_tokens=2048)
ROWS = list(zip(sample_texts(60, longest=8, seed=1), sample_texts(60, longest=40, seed=2), strict=True))
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {},
    "fnet": {},
    "convbert": {"embedding_size": 32},
    "mobilebert": {"embedding_size": 32, "intra_bottleneck_size": 32},
    "yoso": {},
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1, "d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 64},
    "xlnet": {"d_model": 32, "n_head": 2, "n_layer": 2, "d_inner": 64},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
    "gpt2": {"n_embd": 32, "n_head": 2, "n_layer": 2},
}
MOVED = ("fnet", "convbert", "mobilebert", "yoso", "xlnet")  # xlnet where its tokenizer pads on the right
DECODERS = ("qwen3", "gpt2")


def save(family: str, directory: Path, *, pad: str | None = "[PAD]", **changes: Any) -> Path:
    """A random classifier of the family with a tokenizer of words; `pad` is the tokenizer's padding."""
    backend = tiny_tokenizer("bert").backend_tokenizer
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"} | ({"pad_token": pad} if pad else {})
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    tokenizer.save_pretrained(directory)
    sizes = {} if family in ("funnel", "xlnet", "gpt2") else dict(SIZES)
    if family == "fnet":
        del sizes["num_attention_heads"]
    options = {"vocab_size": len(tokenizer), "num_labels": 1, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    config = AutoConfig.for_model(family, **(options | sizes | FAMILIES[family] | changes))
    model = AutoModelForSequenceClassification.from_config(config)
    randomise(model, 0, 0.2)
    with quiet_loading():
        model.save_pretrained(directory)
    return directory


@torch.inference_mode()
def plain(directory: Path, **call: Any) -> np.ndarray:
    with quiet_loading():
        model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
        tokenizer = AutoTokenizer.from_pretrained(directory)
    takes, scores = inspect.signature(model.forward).parameters, []
    for query, passage in ROWS:
        inputs = tokenizer(query, passage, truncation=True, max_length=40, return_tensors="pt", **call)
        scores.append(model(**{name: ids for name, ids in inputs.items() if name in takes}).logits.item())
    return np.array(scores)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_scores_as_transformers_scores_one_pair(
    family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = save(family, tmp_path)
    expected = plain(directory)
    scorer = load_scorer(str(directory), SETTINGS)
    assert np.abs(scorer.score(pairs_of(ROWS)) - expected).max() < 1e-4 * expected.std()
    together = "equal lengths" if family in MOVED else "padded"
    assert scorer.describe()["rows_of_a_batch"] == together
    assert sum("padding moves its scores" in message for message in caplog.messages) == (family in MOVED)
    monkeypatch.setattr("teachers.engine.forms.rows_together", lambda *_, **__: "padded")
    scorer = load_scorer(str(directory), SETTINGS)
    moved = np.abs(scorer.score(pairs_of(ROWS)) - expected).max() > 1e-4 * expected.std()
    assert moved == (family in MOVED)


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_whose_configuration_pads_with_another_id(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks for the last token that is not its own padding: with the tokenizer's, it would read a pad token."""
    directory = save(family, tmp_path, pad_token_id=4)
    expected = plain(directory)
    scorer = load_scorer(str(directory), SETTINGS)
    assert np.abs(scorer.score(pairs_of(ROWS)) - expected).max() < 1e-4 * expected.std()
    monkeypatch.setattr("teachers.engine.forms.rows_together", lambda *_, **__: "padded")
    scorer = load_scorer(str(directory), SETTINGS)
    assert np.abs(scorer.score(pairs_of(ROWS)) - expected).max() > 0.1 * expected.std()
    same = save(family, tmp_path / "same")
    config = json.loads((same / "config.json").read_text())
    before = fingerprint_of(str(same), SETTINGS)
    (same / "config.json").write_text(json.dumps(config | {"pad_token_id": 4}))
    assert fingerprint_of(str(same), SETTINGS) != before


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("pad", ["[PAD]", None])
def test_without_a_padding_token_every_row_runs_alone(
    family: str, pad: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = save(family, tmp_path, pad=pad, pad_token_id=None)
    expected = plain(directory)
    scorer = load_scorer(str(directory), SETTINGS)
    assert np.abs(scorer.score(pairs_of(ROWS)) - expected).max() < 1e-4 * expected.std()
    assert scorer.describe()["rows_of_a_batch"] == "alone" and "every row runs alone" in caplog.text
    assert scorer.tune() > 0


def test_a_model_that_cannot_compute_or_gives_another_score_each_time_is_refused() -> None:
    draw, lengths = np.random.default_rng(0), np.array([3, 3, 9, 20])
    with pytest.raises(ModelError, match="another score each time"):
        padding.rows_together(lambda rows: draw.normal(size=len(rows)), lengths, "m", can_pad=True)
    with pytest.raises(ModelError, match="cannot compute a row"):
        padding.rows_together(lambda rows: np.zeros(0)[[3]], lengths, "m", can_pad=True)
    with pytest.raises(ModelError, match="not finite"):
        padding.rows_together(lambda rows: np.full(len(rows), np.nan), lengths, "m", can_pad=True)


def test_rounding_is_no_movement(caplog: pytest.LogCaptureFixture) -> None:
    lengths, scores = np.array([3, 3, 9, 20]), np.array([-11.2, -11.1, -11.0, 4.0])
    for moved, expected in ((0.0, "padded"), (1e-5, "padded"), (1e-2, "equal lengths")):

        def run(rows: np.ndarray, moved: float = moved) -> np.ndarray:
            return scores[rows] + moved * (len(set(lengths[rows].tolist())) > 1)

        assert padding.rows_together(run, lengths, "m", can_pad=True) == expected
        assert padding.rows_together(run, lengths, "m", can_pad=False) == "equal lengths"
    assert caplog.get_records("call")[0].levelno == logging.WARNING
