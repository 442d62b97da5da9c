"""State dicts with matchmaker's key names, the form in which Hofstätter et al. 2020 published their checkpoints.

    bert_dot   the bare encoder, or under `bert_model.`
    bert_cat   `bert_model.*`, `_classification_layer.weight` (1, D) and `.bias`
    colbert    `bert_model.*`, `compressor.weight` (W, D) and `.bias`
    prettr     `embeddings.*`, `transformer.layer.*`, `_classification_layer.weight` (1, D), no bias

Their classes exist only in the authors' repository. So the encoder is built from its configuration, which directories
written here state in full, and every weight is loaded strictly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from students.architectures.base import load_strictly
from students.architectures.directory import write_json
from teachers.checkpoints.bert_cat import infer_config
from teachers.checkpoints.checkpoint import CONFIG, Checkpoint
from teachers.checkpoints.config_keys import check_published

ENCODER_PREFIX = "bert_model."
_ENCODER_TYPE = "encoder_type"
# Buffers that older versions of transformers saved.
_BUFFERS = ("embeddings.position_ids",)


def is_published(checkpoint: Checkpoint) -> bool:
    """Whether transformers has no class for a checkpoint's form."""
    return checkpoint.config.get("model_type") not in CONFIG_MAPPING


def encoder_of(checkpoint: Checkpoint, state: Mapping[str, Tensor], prefix: str, *, rest: tuple[str, ...]) -> Any:
    """The encoder whose weights start with `prefix`; `rest` are the prefixes of weights that are not the encoder's.

    Raises:
        ModelError: the encoder is unknown, or weights are missing, left over or of another shape.
    """
    check_published(checkpoint.config, checkpoint.directory)
    weights = {key.removeprefix(prefix): weight for key, weight in state.items() if not key.startswith(rest)}
    weights = {key: weight.float() for key, weight in weights.items() if key not in _BUFFERS}
    encoder = AutoModel.from_config(encoder_config(checkpoint, weights), trust_remote_code=False)  # type: ignore[no-untyped-call]
    load_strictly(encoder, weights, checkpoint.directory)
    return encoder


def encoder_config(checkpoint: Checkpoint, state: Mapping[str, Tensor]) -> PreTrainedConfig:
    """The encoder's configuration: stated in full in directories written here, else inferred from the weights."""
    stated = checkpoint.config
    if _ENCODER_TYPE in stated:
        options = {k: v for k, v in stated.items() if k not in ("model_type", "architectures", _ENCODER_TYPE)}
        return AutoConfig.for_model(stated[_ENCODER_TYPE], **options)
    return infer_config(state, stated)


def write_published(directory: Path, model_type: str, encoder: PreTrainedModel, state: Mapping[str, Tensor]) -> None:
    """Write weights under their published names, with a configuration that states the encoder in full."""
    config = {**encoder.config.to_dict(), "model_type": model_type, "architectures": [model_type]}
    write_json(directory / CONFIG, {**config, _ENCODER_TYPE: encoder.config.model_type})
    weights = {name: weight.detach().cpu().contiguous() for name, weight in state.items()}
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
