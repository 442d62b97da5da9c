"""BERT_Cat as published from matchmaker (Hofstätter et al., "Improving Efficient Neural Ranking Models with
Cross-Architecture Knowledge Distillation", arXiv:2010.02666).

State dict: an encoder under `bert_model.`, and `_classification_layer` (1, D) with bias. Its class exists
only in the authors' repository, so the encoder is built here: from the configuration of the encoder that the
checkpoint names in `bert_model` when its tokenizer comes from there, else from the weights' names and shapes.

Shapes: B batch, T tokens, D width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import (
    AlbertConfig,
    AutoConfig,
    AutoModel,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    PreTrainedConfig,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from pipeline.errors import ModelError
from teachers.checkpoints.checkpoint import Checkpoint
from teachers.checkpoints.config_keys import check_published
from teachers.checkpoints.loading import read_weights

log = logging.getLogger(__name__)

ENCODER = "bert_model."
HEAD = "_classification_layer."
HEAD_WIDTH = 64

State = Mapping[str, torch.Tensor]


class BertCat(nn.Module):
    """Encoder and one linear layer over the first token.

    The layer reads BERT's and ALBERT's pooler, and the bare last state of encoders without one (DistilBERT,
    ELECTRA), as matchmaker does.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = AutoModel.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
        self.head = nn.Linear(config.hidden_size, 1)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Logits (B, 1) of input_ids (B, T)."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        output = self.encoder(**inputs)
        pooled = getattr(output, "pooler_output", None)
        first = output.last_hidden_state[:, 0] if pooled is None else pooled  # (B, D)
        return SequenceClassifierOutput(logits=self.head(first))


def load_bert_cat(checkpoint: Checkpoint) -> BertCat:
    """Build the model and load every weight.

    Raises:
        ModelError: unknown encoder, no head, several outputs, or weights that do not fit.
    """
    where = checkpoint.directory
    check_published(checkpoint.config, where)
    state = read_weights(checkpoint)
    encoder = {k.removeprefix(ENCODER): v for k, v in state.items() if k.startswith(ENCODER)}
    # A buffer that older versions of transformers saved.
    encoder.pop("embeddings.position_ids", None)
    head = {k.removeprefix(HEAD): v for k, v in state.items() if k.startswith(HEAD)}
    if not encoder or set(head) != {"weight", "bias"} or head["weight"].shape[0] != 1:
        raise ModelError(
            "not a BERT_Cat",
            where=where,
            expected=f"an encoder under {ENCODER}, {HEAD}weight (1, D) and {HEAD}bias",
            found={name: tuple(tensor.shape) for name, tensor in head.items()} or f"{len(state)} other weights",
        )
    if checkpoint.tokenizer_directory == where:
        config = infer_config(encoder, checkpoint.config)
    else:
        config = AutoConfig.from_pretrained(checkpoint.tokenizer_directory, trust_remote_code=False)
    model = BertCat(config)
    # Strict: a RuntimeError names what is missing, left over or of another shape.
    model.encoder.load_state_dict(encoder)
    model.head.load_state_dict(head)
    return model


class _Names(NamedTuple):
    """How one architecture names, in its weights and configuration, what decides its size."""

    config: Callable[..., PreTrainedConfig]
    stack: str
    """Prefix of the numbered layers."""
    inner: str
    """The feed-forward weight (inner, D) of the first layer."""
    sizes: tuple[str, str, str, str]
    """Configuration keys of width, inner width, layers, attention heads."""


_USUAL = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_ALBERT_LAYER = "encoder.albert_layer_groups.0.albert_layers.0."
_LAYOUTS = {
    "distilbert": _Names(
        DistilBertConfig,
        "transformer.layer.",
        "transformer.layer.0.ffn.lin1.weight",
        ("dim", "hidden_dim", "n_layers", "n_heads"),
    ),
    "bert": _Names(BertConfig, "encoder.layer.", "encoder.layer.0.intermediate.dense.weight", _USUAL),
    "electra": _Names(ElectraConfig, "encoder.layer.", "encoder.layer.0.intermediate.dense.weight", _USUAL),
    "albert": _Names(AlbertConfig, "encoder.albert_layer_groups.", _ALBERT_LAYER + "ffn.weight", _USUAL),
}


def infer_config(encoder: State, stated: Mapping[str, Any]) -> PreTrainedConfig:
    """Configuration of an encoder from its weights; `stated` (the checkpoint's own) has the last word.

    Attention heads leave no trace in the weights: unless stated they are 64 wide, as in every published BERT
    and DistilBERT of base and large size.

    Raises:
        ModelError: no known layout, or a number that the weights cannot tell and nobody states.
    """
    layout = _layout(encoder)
    names = _LAYOUTS[layout]
    words, positions = (encoder[f"embeddings.{n}_embeddings.weight"].shape for n in ("word", "position"))
    inner, width = encoder[names.inner].shape
    layers = {key.removeprefix(names.stack).split(".")[0] for key in encoder if key.startswith(names.stack)}
    found: dict[str, Any] = dict(zip(names.sizes, (width, inner, len(layers), width // HEAD_WIDTH), strict=True))
    found |= {"vocab_size": words[0], "max_position_embeddings": positions[0], "pad_token_id": 0}
    if layout != "distilbert":
        found["type_vocab_size"] = encoder["embeddings.token_type_embeddings.weight"].shape[0]
    if layout in ("electra", "albert"):
        found["embedding_size"] = words[1]
    if layout == "albert":
        # Its layers share their weights, so their number does not show.
        found |= {"num_hidden_groups": len(layers), "num_hidden_layers": None, "hidden_act": "gelu_new"}
    alias = dict(zip(_USUAL, names.sizes, strict=True))
    stated = {alias.get(key, key): value for key, value in stated.items()}
    found |= {key: stated[key] for key in (*found, "hidden_act", "activation", "layer_norm_eps") if key in stated}
    if found.get("num_hidden_layers", 1) is None:
        raise ModelError("ALBERT's weights do not tell its layers", todo="state num_hidden_layers in config.json")
    if names.sizes[3] not in stated:
        log.warning("attention heads are not stated in config.json; taken to be %d wide", HEAD_WIDTH)
    return names.config(**found)


def _layout(encoder: State) -> str:
    for name in ("distilbert", "albert"):
        if _LAYOUTS[name].inner in encoder:
            return name
    types = encoder.get("embeddings.token_type_embeddings.weight")
    # RoBERTa shares BERT's names, but has one token type and counts positions otherwise.
    if _LAYOUTS["bert"].inner in encoder and types is not None and types.shape[0] > 1:
        return "bert" if "pooler.dense.weight" in encoder else "electra"
    raise ModelError(
        "BERT_Cat over an unknown encoder",
        expected="weights of DistilBERT, BERT, ELECTRA or ALBERT",
        found=", ".join(sorted(encoder)[:4]),
    )
