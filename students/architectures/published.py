"""State dicts with the key names of matchmaker, in which the paper's authors published their checkpoints.

    bert_dot   the bare encoder, or under `bert_model.`
    bert_cat   `bert_model.*`, `_classification_layer.weight` (1, D) and `.bias`
    colbert    `bert_model.*`, `compressor.weight` (W, D) and `.bias`
    prettr     `embeddings.*`, `transformer.layer.*`, `_classification_layer.weight` (1, D), no bias

Their classes exist only in the authors' repository, so an encoder is built from its configuration, which our own
directories of this form state whole, and every weight is loaded strictly.
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

ENCODER_PREFIX = "bert_model."
_ENCODER_TYPE = "encoder_type"
# Buffers that older versions of transformers saved.
_BUFFERS = ("embeddings.position_ids",)


def is_published(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint is in a form that transformers has no class for."""
    return checkpoint.config.get("model_type") not in CONFIG_MAPPING


def encoder_of(checkpoint: Checkpoint, state: Mapping[str, Tensor], prefix: str, *, rest: tuple[str, ...]) -> Any:
    """The encoder under `prefix`, with every weight that does not begin with one of `rest`.

    Raises:
        ModelError: an unknown encoder, or weights missing, left over or of another shape.
    """
    own = {key.removeprefix(prefix): weight for key, weight in state.items() if not key.startswith(rest)}
    own = {key: weight.float() for key, weight in own.items() if key not in _BUFFERS}
    encoder = AutoModel.from_config(encoder_config(checkpoint, own), trust_remote_code=False)  # type: ignore[no-untyped-call]
    load_strictly(encoder, own, checkpoint.directory)
    return encoder


def encoder_config(checkpoint: Checkpoint, state: Mapping[str, Tensor]) -> PreTrainedConfig:
    """The encoder's configuration: stated whole in our own directories, else told from the weights."""
    stated = checkpoint.config
    if _ENCODER_TYPE in stated:
        options = {k: v for k, v in stated.items() if k not in ("model_type", "architectures", _ENCODER_TYPE)}
        return AutoConfig.for_model(stated[_ENCODER_TYPE], **options)
    return infer_config(state, stated)


def write_published(directory: Path, kind: str, encoder: PreTrainedModel, state: Mapping[str, Tensor]) -> None:
    """Write weights under their published names, and a configuration that says what encoder they are for."""
    config = {**encoder.config.to_dict(), "model_type": kind, "architectures": [kind]}
    write_json(directory / CONFIG, {**config, _ENCODER_TYPE: encoder.config.model_type})
    weights = {name: weight.detach().cpu().contiguous() for name, weight in state.items()}
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
