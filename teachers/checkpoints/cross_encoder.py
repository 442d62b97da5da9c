"""Loading a cross-encoder with one output: any sequence classifier of transformers, or a BERT_Cat.

In: a checkpoint. Out: a module in eval mode whose `logits` (B, 1) are raw: no activation is ever applied. A
checkpoint without a head, or with weights that do not fit, is refused: random weights score in silence.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig

from pipeline.errors import ModelError
from teachers.checkpoints.bert_cat import load_bert_cat
from teachers.checkpoints.checkpoint import Checkpoint
from teachers.checkpoints.loading import load_config, load_model, loading

log = logging.getLogger(__name__)


class CrossEncoder(NamedTuple):
    """A loaded model."""

    module: nn.Module
    """Takes input_ids, attention_mask and, where it has any, token_type_ids; gives `logits` (B, 1)."""
    config: PreTrainedConfig
    """The encoder's configuration."""
    form: str
    """Its class: "BertForSequenceClassification", …, or "BERT_Cat"."""
    gets_types: bool | None = None
    """Whether its inputs have token types, as `teachers.tokens.token_types` decides; None: not decided."""

    @property
    def has_token_types(self) -> bool:
        """Whether token types tell query and passage apart."""
        if self.gets_types is not None:
            return self.gets_types
        return (getattr(self.config, "type_vocab_size", None) or 0) > 1

    @property
    def vocabulary(self) -> int | None:
        """How many token ids it has embeddings for, as far as known."""
        return getattr(self.config, "vocab_size", None)

    @property
    def positions(self) -> int | None:
        """The longest input in tokens, or None where nothing limits it."""
        return positions_of(self.module, self.config)


def positions_of(model: nn.Module, config: object) -> int | None:
    """The longest input of a model in tokens, or None where nothing limits it."""
    learned = learned_positions(model)
    if learned is not None:
        return learned
    stated = getattr(config, "max_position_embeddings", None)
    return stated if stated is not None and stated > 0 else None  # XLNet has no limit, and states -1


def learned_positions(module: nn.Module) -> int | None:
    """The tokens for which a model has position embeddings; None if it computes positions."""
    for name, part in module.named_modules():
        if name.endswith(("position_embeddings", "wpe")) and isinstance(part, nn.Embedding):
            # RoBERTa and its kin count from the padding index on.
            unused = 0 if part.padding_idx is None else part.padding_idx + 1
            return part.num_embeddings - unused
    return None


def load_cross_encoder(checkpoint: Checkpoint) -> CrossEncoder:
    """Load a model in float32; attention is PyTorch's scaled dot product wherever the architecture has it.

    Raises:
        ModelError: unknown architecture, no head, several labels, or weights that do not fit.
    """
    todo = "name a sequence classifier that transformers can load, or a BERT_Cat"
    with loading("a cross-encoder", checkpoint.directory, todo):
        module, config, form = (_bert_cat if checkpoint.is_bert_cat else _classifier)(checkpoint)
    for weight in module.parameters():
        # Weights mapped from a file lie at odd addresses, which moves the last bits of a logit.
        weight.data = weight.data.clone()
    return CrossEncoder(module.eval(), config, form)


def _bert_cat(checkpoint: Checkpoint) -> tuple[nn.Module, PreTrainedConfig, str]:
    model = load_bert_cat(checkpoint).float()
    return model, model.config, "BERT_Cat"


def _classifier(checkpoint: Checkpoint) -> tuple[nn.Module, PreTrainedConfig, str]:
    where = checkpoint.directory
    config = load_config(where)
    module, info = load_model(AutoModelForSequenceClassification, where, config=config, dtype=torch.float32)
    if info["mismatched_keys"]:
        raise ModelError(
            "weights of other shapes than the configuration says",
            where=where,
            expected=f"all weights of {type(module).__name__}",
            found=_some(
                {f"{key} {tuple(found)}, not {tuple(expected)}" for key, found, expected in info["mismatched_keys"]}
            ),
        )
    if info["missing_keys"]:
        raise ModelError(
            "weights missing for a sequence classifier; an encoder without its head?",
            where=where,
            expected=f"all weights of {type(module).__name__}",
            found=f"none for {_some(info['missing_keys'])}",
            todo="name a trained cross-encoder",
        )
    if config.num_labels != 1:
        raise ModelError(
            "not a cross-encoder with one output",
            where=where,
            expected="num_labels 1",
            found=config.num_labels,
            todo="name a checkpoint trained to give one score per pair",
        )
    if info["unexpected_keys"]:
        log.warning("%s: weights not used by %s: %s", where, type(module).__name__, _some(info["unexpected_keys"]))
    return module, module.config, type(module).__name__


def _some(keys: set[str]) -> str:
    names = sorted(keys)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
