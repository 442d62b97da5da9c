"""Loading a language-model reranker: a decoder whose last position gives the score.

In: a checkpoint and what reads its last position: the logits of one or two tokens, or a classification head with one
output. Out: a module whose `logits` (B, T, 1 or 2) hold those outputs at every position. The decoder's forward is the
library's, so what an architecture does to its logits (scaling, soft caps) is done here too. Only the rows of the output
embedding that are read are kept: 2 of 150,000 for Qwen3.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from pipeline.errors import ModelError
from teachers.checkpoints.checkpoint import Checkpoint
from teachers.checkpoints.loading import load_config, load_model, loading


class ScoredTokens(NamedTuple):
    """The tokens whose logits make the score."""

    true_id: int
    false_id: int | None
    """The score is logit(true) - logit(false); None: logit(true) alone."""


class LanguageModel(NamedTuple):
    """A loaded decoder."""

    module: nn.Module
    """Takes input_ids, attention_mask, position_ids and past_key_values."""
    config: PreTrainedConfig
    form: str
    """Its class."""
    tokens: ScoredTokens | None
    """None: a classification head."""

    @property
    def vocabulary(self) -> int:
        """How many token ids it has embeddings for."""
        return int(self.config.get_text_config().vocab_size)

    @property
    def positions(self) -> int | None:
        """The longest input in tokens."""
        return getattr(self.config.get_text_config(), "max_position_embeddings", None)


def answer_ids(
    tokenizer: PreTrainedTokenizerBase, answer: tuple[int | str, int | str | None] | None
) -> ScoredTokens | None:
    """The ids of the tokens of a definition's answer.

    Raises:
        ModelError: the vocabulary lacks one.
    """
    if answer is None:
        return None
    known = tokenizer.get_vocab()
    missing = [token for token in answer if isinstance(token, str) and token not in known]
    if missing:
        raise ModelError(
            "its vocabulary lacks a token whose logit would be its score",
            where=tokenizer.name_or_path,
            expected="the tokens yes and no",
            found=f"none for {missing[0]}",
        )
    true_id, false_id = (known[token] if isinstance(token, str) else token for token in answer)
    assert true_id is not None
    return ScoredTokens(true_id, false_id)


def load_language_model(checkpoint: Checkpoint, tokens: ScoredTokens | None) -> LanguageModel:
    """Load in float32.

    Raises:
        ModelError: unknown architecture, weights that are missing or do not fit, or ids beyond the vocabulary.
    """
    where = checkpoint.directory
    with loading("a language-model reranker", where):
        config = load_config(where)
        kind = AutoModelForSequenceClassification if tokens is None else AutoModelForCausalLM
        module, info = load_model(kind, where, config=config, dtype=torch.float32)
    check_weights(info, where)
    if tokens is not None:
        keep_rows(module, tokens, checkpoint)
    elif config.num_labels != 1 or not hasattr(module, "score"):
        raise ModelError(
            "not a decoder with one output",
            where=where,
            expected="a head `score` of one label",
            found=config.num_labels,
        )
    return LanguageModel(module.eval(), module.config, type(module).__name__, tokens)


def check_weights(info: Mapping[str, Any], where: Path) -> None:
    """Refuse a load that left weights random.

    Raises:
        ModelError: weights are missing or of another shape.
    """
    wrong = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if wrong:
        raise ModelError("weights missing or of another shape", where=where, found=", ".join(wrong[:4]))


def keep_rows(module: nn.Module, tokens: ScoredTokens, checkpoint: Checkpoint) -> None:
    """Replace the output embedding by its rows of the scored tokens."""
    whole = module.get_output_embeddings()  # type: ignore[operator]
    ids = [token for token in tokens if token is not None]
    if max(ids) >= whole.weight.shape[0]:
        raise ModelError(
            "scored tokens beyond the vocabulary",
            where=checkpoint.directory,
            expected=f"ids below {whole.weight.shape[0]}",
            found=max(ids),
        )
    rows = nn.Linear(whole.weight.shape[1], len(ids), bias=getattr(whole, "bias", None) is not None)
    rows.weight = nn.Parameter(whole.weight.detach()[ids].clone(), requires_grad=False)
    if rows.bias is not None:
        rows.bias = nn.Parameter(whole.bias.detach()[ids].clone(), requires_grad=False)
    module.set_output_embeddings(rows)  # type: ignore[operator]
