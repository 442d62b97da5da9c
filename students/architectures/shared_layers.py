"""Makes an ALBERT from a BERT: groups of neighbouring layers share their weights.

Lan et al. 2019 (arXiv 1909.11942), section 3.1. Deviations: the weights come from a trained BERT, those of each group
from its first layer; and word embeddings keep their width, so the mapping after them starts as the identity.

With as many groups as layers the scores do not change.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from transformers import AlbertConfig, AlbertForSequenceClassification, PreTrainedModel

from pipeline.errors import ModelError
from students.architectures.base import load_strictly

_LAYER = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.dense": "attention.output.dense",
    "attention.LayerNorm": "attention.output.LayerNorm",
    "ffn": "intermediate.dense",
    "ffn_output": "output.dense",
    "full_layer_layer_norm": "output.LayerNorm",
}
"""Names of weights in ALBERT → names in BERT."""


def share_layers(model: PreTrainedModel, groups: int, where: object) -> PreTrainedModel:
    """An ALBERT classifier with a BERT classifier's depth, widths and weights, and `groups` different layers.

    Raises:
        ModelError: the model is not a BERT, or has fewer layers than `groups`.
    """
    config = model.config
    if config.model_type != "bert":
        raise ModelError(
            "layers cannot be shared",
            where=where,
            expected="a BERT",
            found=config.model_type,
            todo="name another checkpoint",
        )
    depth = config.num_hidden_layers
    if groups > depth:
        raise ModelError("more groups of shared layers than layers", where=where, expected=depth, found=groups)
    dropout = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
    shared = AlbertForSequenceClassification(
        AlbertConfig(
            vocab_size=config.vocab_size,
            embedding_size=config.hidden_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=depth,
            num_hidden_groups=groups,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            hidden_act=config.hidden_act,
            hidden_dropout_prob=config.hidden_dropout_prob,
            attention_probs_dropout_prob=config.attention_probs_dropout_prob,
            max_position_embeddings=config.max_position_embeddings,
            type_vocab_size=config.type_vocab_size,
            layer_norm_eps=config.layer_norm_eps,
            classifier_dropout_prob=dropout,
            pad_token_id=config.pad_token_id,
            bos_token_id=None,
            eos_token_id=None,
            num_labels=1,  # type: ignore[call-arg]
        )
    )
    load_strictly(shared, _state(model.state_dict(), depth, groups, config.hidden_size), where)
    return cast(PreTrainedModel, shared)


def _state(old: dict[str, Tensor], depth: int, groups: int, width: int) -> dict[str, Tensor]:
    """The weights under ALBERT's names."""
    state = {"al" + key: weight for key, weight in old.items() if key.startswith("bert.embeddings.")}
    state |= {key: weight for key, weight in old.items() if key.startswith("classifier.")}
    mapping = "albert.encoder.embedding_hidden_mapping_in"
    state |= {f"{mapping}.weight": torch.eye(width), f"{mapping}.bias": torch.zeros(width)}
    for parameter in ("weight", "bias"):
        state[f"albert.pooler.{parameter}"] = old[f"bert.pooler.dense.{parameter}"]
        for group in range(groups):
            # The first layer that ALBERT runs with this group, by its own formula.
            layer = next(i for i in range(depth) if int(i / (depth / groups)) == group)
            for name, bert_name in _LAYER.items():
                key = f"albert.encoder.albert_layer_groups.{group}.albert_layers.0.{name}.{parameter}"
                state[key] = old[f"bert.encoder.layer.{layer}.{bert_name}.{parameter}"]
    return state
