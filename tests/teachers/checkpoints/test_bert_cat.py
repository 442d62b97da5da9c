"""The published BERT_Cat form, against its definition written out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)

from pipeline.errors import ModelError
from teachers.checkpoints.bert_cat import BertCat
from teachers.checkpoints.checkpoint import resolve
from teachers.checkpoints.cross_encoder import load_cross_encoder
from teachers.engine.engine import CrossEncoderScorer, fingerprint_of, load_scorer
from teachers.scorer import pairs_of
from teachers.settings import ScoringSettings
from tests.tiny_models import Kind, sample_texts, save_bert_cat, tiny_tokenizer

SETTINGS = ScoringSettings(max_length_tokens=30)
ROWS = [
    *zip(sample_texts(30, longest=9), sample_texts(30, longest=40, seed=1), strict=True),
    ("what is ice", ""),
]


def encoder(kind: str, words: int, heads: int = 2) -> PreTrainedModel:
    sizes = {
        "vocab_size": words,
        "num_attention_heads": heads,
        "num_hidden_layers": 2,
        "max_position_embeddings": 32,
    }
    wide = sizes | {"hidden_size": 128, "intermediate_size": 160}
    if kind == "distilbert":
        return DistilBertModel(
            DistilBertConfig(
                vocab_size=words,
                dim=128,
                hidden_dim=160,
                n_layers=2,
                n_heads=heads,
                max_position_embeddings=32,
            )
        )
    if kind == "bert":
        return BertModel(BertConfig(**wide))
    if kind == "electra":
        return ElectraModel(ElectraConfig(**wide, embedding_size=24))
    return AlbertModel(AlbertConfig(**wide, embedding_size=24, hidden_act="gelu_new"))


def by_hand(model: PreTrainedModel, directory: Path, *, pooled: bool, types: bool) -> np.ndarray:
    state = torch.load(directory / "pytorch_model.bin", weights_only=True)
    tokenizer = AutoTokenizer.from_pretrained(directory, config=model.config)
    logits = []
    with torch.inference_mode():
        for query, passage in ROWS:
            call = tokenizer(
                query,
                passage,
                truncation=True,
                max_length=30,
                return_token_type_ids=types,
                return_tensors="pt",
            )
            output = model.eval()(**call)
            first = output.pooler_output[0] if pooled else output.last_hidden_state[0, 0]
            weight, bias = state["_classification_layer.weight"], state["_classification_layer.bias"]
            logits.append((weight @ first + bias).item())
    return np.array(logits, np.float32)


def save(directory: Path, kind: str, tokenizer: Kind, *, heads: int = 2, **config: Any) -> PreTrainedModel:
    words = tiny_tokenizer(tokenizer)
    words.save_pretrained(directory)
    model = encoder(kind, len(words), heads)
    save_bert_cat(directory, model, **config)
    return model


@pytest.mark.parametrize(
    ("kind", "tokenizer", "pooled", "types", "stated"),
    [
        ("distilbert", "distilbert", False, False, {}),
        ("bert", "bert", True, True, {}),
        ("electra", "electra", False, True, {}),
        ("albert", "albert", True, True, {"num_hidden_layers": 2}),
    ],
)
def test_scores_are_those_of_the_definition(
    tmp_path: Path, kind: str, tokenizer: Kind, pooled: bool, types: bool, stated: dict[str, Any]
) -> None:
    model = save(tmp_path, kind, tokenizer, **stated)
    scores = load_scorer(str(tmp_path), SETTINGS).score(pairs_of(ROWS))
    expected = by_hand(model, tmp_path, pooled=pooled, types=types)
    assert expected.std() > 0.1
    np.testing.assert_allclose(scores, expected, atol=1e-4, rtol=0)


def test_the_encoder_it_names_gives_tokenizer_and_configuration(tmp_path: Path) -> None:
    """Heads 32 wide leave no trace in the weights: the named encoder's configuration tells."""
    named, directory = tmp_path / "named", tmp_path / "published"
    directory.mkdir()
    words = tiny_tokenizer("distilbert")
    words.save_pretrained(named)
    model = encoder("distilbert", len(words), heads=4)
    model.config.save_pretrained(named)
    save_bert_cat(directory, model, named=str(named))
    before = load_scorer(str(directory), SETTINGS)
    scores = before.score(pairs_of(ROWS))
    encoder("distilbert", len(words), heads=2).config.save_pretrained(named)
    assert fingerprint_of(str(directory), SETTINGS) != before.fingerprint
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (directory / file).write_bytes((named / file).read_bytes())
    expected = by_hand(model, directory, pooled=False, types=False)
    np.testing.assert_allclose(scores, expected, atol=1e-4, rtol=0)
    # With the tokenizer at hand, and no word about heads, they are taken to be 64 wide.
    assert np.abs(load_scorer(str(directory), SETTINGS).score(pairs_of(ROWS)) - expected).max() > 0.01


@pytest.mark.parametrize("key", ["n_heads", "num_attention_heads"])
def test_heads_may_be_stated(tmp_path: Path, key: str, caplog: pytest.LogCaptureFixture) -> None:
    model = save(tmp_path, "distilbert", "distilbert", heads=4, **{key: 4})
    scores = load_scorer(str(tmp_path), SETTINGS).score(pairs_of(ROWS))
    np.testing.assert_allclose(scores, by_hand(model, tmp_path, pooled=False, types=False), atol=1e-4, rtol=0)
    assert not caplog.records


def test_heads_taken_for_granted_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, "distilbert", "distilbert")
    scorer: CrossEncoderScorer = load_scorer(str(tmp_path), SETTINGS)
    assert "64 wide" in caplog.text
    assert scorer.describe()["form"] == "BERT_Cat"


def test_the_size_of_the_published_model_is_read_off_its_weights(tmp_path: Path) -> None:
    """768 wide, 12 heads; one layer and few words, to be quick."""
    config = DistilBertConfig(vocab_size=300, n_layers=1)
    tiny_tokenizer("distilbert").save_pretrained(tmp_path)
    save_bert_cat(tmp_path, DistilBertModel(config))
    module = load_cross_encoder(resolve(str(tmp_path))).module
    assert isinstance(module, BertCat)
    keys = ("dim", "hidden_dim", "n_layers", "n_heads", "vocab_size", "max_position_embeddings", "activation")
    assert {key: getattr(module.config, key) for key in keys} == {key: getattr(config, key) for key in keys}


def change(directory: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    state = torch.load(directory / "pytorch_model.bin", weights_only=True)
    edit(state)
    torch.save(state, directory / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda state: state.pop("_classification_layer.bias"), "not a BERT_Cat"),
        (lambda state: state.update({"_classification_layer.weight": torch.zeros(2, 128)}), r"\(2, 128\)"),
        (
            lambda state: state.pop("bert_model.transformer.layer.1.ffn.lin2.bias"),
            r"layer\.1\.ffn\.lin2\.bias",
        ),
        (lambda state: state.update({"bert_model.more": torch.zeros(1)}), "more"),
        (lambda state: state.pop("bert_model.embeddings.word_embeddings.weight"), "word_embeddings"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, edit: Callable[..., Any], message: str) -> None:
    save(tmp_path, "distilbert", "distilbert")
    change(tmp_path, edit)
    with pytest.raises(ModelError, match=message):
        load_scorer(str(tmp_path), SETTINGS)


def test_position_ids_of_older_versions_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path, "distilbert", "distilbert")
    change(tmp_path, lambda s: s.update({"bert_model.embeddings.position_ids": torch.arange(32)[None]}))
    assert load_scorer(str(tmp_path), SETTINGS).score(pairs_of(ROWS)).shape == (len(ROWS),)


def test_encoders_that_only_look_like_bert_are_refused(tmp_path: Path) -> None:
    words = tiny_tokenizer("roberta")
    words.save_pretrained(tmp_path)
    config = RobertaConfig(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        type_vocab_size=1,
    )
    save_bert_cat(tmp_path, RobertaModel(config))
    with pytest.raises(ModelError, match="unknown encoder"):
        load_scorer(str(tmp_path), SETTINGS)


def test_alberts_layers_must_be_stated(tmp_path: Path) -> None:
    save(tmp_path, "albert", "albert")
    with pytest.raises(ModelError, match="state num_hidden_layers"):
        load_scorer(str(tmp_path), SETTINGS)


def test_a_tokenizer_that_is_not_at_hand_is_asked_for(tmp_path: Path) -> None:
    save_bert_cat(tmp_path, encoder("distilbert", 300))
    assert json.loads((tmp_path / "config.json").read_text())["bert_model"] == "distilbert-base-uncased"
    with pytest.raises(ModelError, match="distilbert-base-uncased: neither a local directory"):
        load_scorer(str(tmp_path), SETTINGS)
