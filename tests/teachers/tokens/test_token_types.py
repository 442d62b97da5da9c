"""Token types as each checkpoint's files declare them, against sentence-transformers' own class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import (
    DistilBertTokenizer,
    FunnelConfig,
    FunnelForSequenceClassification,
    PreTrainedTokenizerFast,
)

from pipeline.errors import UsageError
from pipeline.fingerprint import digest_json
from teachers.checkpoints.checkpoint import fingerprint_of, resolve
from teachers.checkpoints.loading import quiet_loading
from teachers.engine.engine import load_scorer
from teachers.scorer import pairs_of
from teachers.settings import ScoringSettings
from tests.tiny_models import VOCABULARY, randomise, sample_texts, save_tiny, tiny_tokenizer

ROWS = list(zip(sample_texts(40, longest=8, seed=1), sample_texts(40, longest=30, seed=2), strict=True))
LIMIT = 40
ON = ["input_ids", "token_type_ids", "attention_mask"]
OFF = ["input_ids", "attention_mask"]


def settings(**options: Any) -> ScoringSettings:
    return ScoringSettings(max_length_tokens=LIMIT, **options)


def change(directory: Path, file: str, **values: Any) -> None:
    path = directory / file
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def scores(directory: Path, **options: Any) -> np.ndarray:
    return load_scorer(str(directory), settings(**options)).score(pairs_of(ROWS))


def library(directory: Path) -> np.ndarray:
    peer = pytest.importorskip("sentence_transformers")
    with quiet_loading():
        model = peer.CrossEncoder(str(directory), device="cpu", max_length=LIMIT)
    identity = __import__("torch").nn.Identity()
    return np.array([model.predict([row], activation_fn=identity, show_progress_bar=False)[0] for row in ROWS])


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one - other).max() < 1e-4 * other.std())


@pytest.fixture
def albert(tmp_path: Path) -> Path:
    """Saved by the installed transformers, whose tokenizer leaves token types out unless its files declare them."""
    directory = save_tiny("albert", tmp_path / "albert")
    change(directory, "tokenizer_config.json", model_input_names=None)
    return directory


def test_what_the_tokenizer_declares_is_followed(albert: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = {}
    for name, declared in (("on", ON), ("off", OFF)):
        change(albert, "tokenizer_config.json", model_input_names=declared)
        found[name] = scores(albert)
        assert same(found[name], library(albert)), name
        assert same(scores(albert, token_types=name), found[name])
    assert not same(found["on"], found["off"]) and not caplog.text


def test_undeclared_types_are_those_of_the_library_and_a_warning_names_the_option(
    albert: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert same(scores(albert), library(albert)) and same(scores(albert), scores(albert, token_types="off"))
    assert "do not tell" in caplog.text and "--token-types" in caplog.text
    caplog.clear()
    assert not same(scores(albert, token_types="on"), scores(albert)) and len(caplog.messages) == 1


@pytest.mark.parametrize("version", ["4.44.2", None])
def test_what_an_older_transformers_saved_was_trained_with_types(
    albert: Path, version: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    change(albert, "config.json", transformers_version=version)
    assert same(scores(albert), scores(albert, token_types="on")) and "transformers 4 did" in caplog.text


def test_what_was_trained_here_before_tokenizers_declared_them_keeps_them(albert: Path) -> None:
    (albert / "prep.json").write_text("{}")
    assert same(scores(albert), scores(albert, token_types="on"))


@pytest.mark.parametrize("tokenizer", [PreTrainedTokenizerFast, DistilBertTokenizer])
def test_a_bert_with_a_tokenizer_without_types(tokenizer: Any, tmp_path: Path) -> None:
    directory = save_tiny("bert", tmp_path)
    with_types = scores(directory)
    fast = tiny_tokenizer("bert")
    names = {f"{name}_token": getattr(fast, f"{name}_token") for name in ("pad", "unk", "cls", "sep", "mask")}
    if tokenizer is PreTrainedTokenizerFast:
        made = tokenizer(tokenizer_object=fast.backend_tokenizer, **names)
    else:
        made = tokenizer(vocab=fast.get_vocab())
    made.save_pretrained(directory)
    assert same(scores(directory), library(directory)) and not same(scores(directory), with_types)


def test_a_configuration_without_the_number_of_types(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Funnel reads them, with a type of its own for the first token."""
    tokenizer = tiny_tokenizer("bert")
    names = {f"{name}_token": getattr(tokenizer, f"{name}_token") for name in ("pad", "unk", "cls", "sep", "mask")}
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, **names)
    sizes = {"block_sizes": [1, 1], "num_decoder_layers": 1, "d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 64}
    model = FunnelForSequenceClassification(FunnelConfig(vocab_size=VOCABULARY, num_labels=1, **sizes))
    randomise(model, 0, 0.2)
    found, prints = {}, set()
    for name, declared in (("on", ON), ("off", OFF)):
        directory = tmp_path / name
        with quiet_loading():
            model.save_pretrained(directory)
        made.model_input_names = made.init_kwargs["model_input_names"] = declared
        made.save_pretrained(directory)
        found[name] = scores(directory)
        assert same(found[name], library(directory)), name
        prints.add(fingerprint_of(str(directory), settings()))
    assert not same(found["on"], found["off"]) and len(prints) == 2


def test_the_option_for_a_model_without_token_types(tmp_path: Path) -> None:
    for kind in ("distilbert", "roberta", "modernbert"):
        directory = save_tiny(kind, tmp_path / kind)
        assert same(scores(directory, token_types="off"), scores(directory))
        with pytest.raises(UsageError, match="no token types"):
            load_scorer(str(directory), settings(token_types="on"))


def test_a_fingerprint_changes_where_the_reading_does_and_nowhere_else(albert: Path, tmp_path: Path) -> None:
    def identity(directory: Path, **options: Any) -> str:
        return fingerprint_of(str(directory), settings(**options))

    undeclared = identity(albert)
    assert len({undeclared, identity(albert, token_types="on")}) == 2
    change(albert, "config.json", transformers_version="4.44.2")
    assert identity(albert) != undeclared
    for kind in ("bert", "roberta", "distilbert", "modernbert", "electra"):
        checkpoint = resolve(str(save_tiny(kind, tmp_path / kind)))
        before = {
            "weights": checkpoint.weights_hash,
            "tokenizer": checkpoint.tokenizer_hash,
            "token_types": "passed where the model has more than one",
            "max_length_tokens": LIMIT,
            "truncation": "longest_first",
            "dtype": "float32",
            "activation": "identity",
        }
        assert checkpoint.fingerprint(settings()) == digest_json(before)
