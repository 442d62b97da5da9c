"""What is refused as a teacher, and that loading is silent."""

from __future__ import annotations

from collections.abc import Callable
from logging import WARNING
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModel
from transformers.utils import logging

from pipeline.errors import ModelError
from teachers.checkpoints.loading import quiet_loading
from teachers.engine.engine import load_scorer
from teachers.settings import ScoringSettings
from tests.tiny_models import Kind, save_tiny

SETTINGS = ScoringSettings(max_length_tokens=20)


def edit_weights(directory: Path, change: Callable[[dict], None]) -> None:
    weights = load_file(directory / "model.safetensors")
    change(weights)
    save_file(weights, directory / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "modernbert"])
def test_an_encoder_without_a_head_is_refused(tmp_path: Path, kind: Kind) -> None:
    directory = save_tiny(kind, tmp_path)
    with quiet_loading():
        AutoModel.from_pretrained(directory).save_pretrained(directory)
    with pytest.raises(ModelError, match="without its head") as caught:
        load_scorer(str(directory), SETTINGS)
    assert "classifier." in str(caught.value)


def test_one_missing_weight_is_enough(tmp_path: Path) -> None:
    directory = save_tiny("bert", tmp_path)
    edit_weights(directory, lambda weights: weights.pop("bert.encoder.layer.1.output.dense.bias"))
    with pytest.raises(ModelError, match=r"encoder\.layer\.1\.output\.dense\.bias"):
        load_scorer(str(directory), SETTINGS)


def test_two_labels_are_refused(tmp_path: Path) -> None:
    directory = save_tiny("bert", tmp_path, num_labels=2)
    with pytest.raises(ModelError, match="expected: num_labels 1\n  found:    2"):
        load_scorer(str(directory), SETTINGS)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    directory = save_tiny("bert", tmp_path)

    def double(weights: dict) -> None:
        weights["classifier.weight"] = weights["classifier.weight"].repeat(2, 1)

    edit_weights(directory, double)
    with pytest.raises(ModelError, match=r"classifier\.weight \(2, 32\), not \(1, 32\)"):
        load_scorer(str(directory), SETTINGS)


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    directory = save_tiny("bert", tmp_path)
    config = (directory / "config.json").read_text().replace('"bert"', '"ColBERT"')
    (directory / "config.json").write_text(config)
    with pytest.raises(ModelError, match="ColBERT"):
        load_scorer(str(directory), SETTINGS)


def test_weights_that_nobody_uses_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = save_tiny("bert", tmp_path)
    edit_weights(directory, lambda weights: weights.update(adapter=weights["classifier.bias"].clone()))
    load_scorer(str(directory), SETTINGS)
    assert "weights not used by BertForSequenceClassification: adapter" in caplog.text


def test_loading_is_silent_and_leaves_the_librarys_settings_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    directory = save_tiny("bert", tmp_path)
    before = logging.get_verbosity()
    logging.set_verbosity(WARNING)
    assert logging.is_progress_bar_enabled()
    load_scorer(str(directory), SETTINGS)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert logging.get_verbosity() == WARNING
    assert logging.is_progress_bar_enabled()
    logging.set_verbosity(before)
