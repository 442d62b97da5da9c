"""SPLADE, a learned sparse retriever: a text is a vector of weights over the vocabulary, scored by the dot product.

Formal et al. 2021 (arXiv 2107.05720) with the max pooling of SPLADE v2 (arXiv 2109.10086): the weight of a vocabulary
entry is the maximum over the text's tokens of log(1 + relu(logit)), by a masked language model's head. The FLOPS
regulariser is that of Paria et al. 2020 (arXiv 2004.05665). Deviation: a bare encoder gets a head that starts from its
embeddings, see `_begin_head`.

Shapes: B queries, N texts or pairs, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist
from typing import ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForMaskedLM, PreTrainedModel

from students.architectures.base import layers_override, refuse_missing
from students.architectures.directory import Module, save_tokenizer, transformer_facts, write_modules
from students.architectures.one_vector import OneVectorStudent
from students.architectures.separate import States
from students.settings import StudentSettings
from teachers.checkpoints.checkpoint import Checkpoint, resolve
from teachers.checkpoints.definition import Definition
from teachers.checkpoints.loading import load_config, load_model, load_tokenizer, loading
from teachers.checkpoints.modules import Splade

# Names of the masked language model's head in the model families; bare encoders lack it.
_HEAD = ("cls.predictions", "vocab_", "lm_head", "predictions.", "generator_", "head.", "decoder")
_STRAIGHT = 3.0
"""An input so large that GELU is close to the identity for the values around it."""


class Sparse(OneVectorStudent):
    """A learned sparse retriever with one shared encoder."""

    name: ClassVar[str] = "sparse"
    library_class: ClassVar[str] = "SparseEncoder"
    sparse: ClassVar[bool] = True
    splade: Splade = Splade()
    """How weights are made from logits."""
    normalize: bool = False
    """Whether vectors are scaled to unit length, for cosines."""
    max_active_dims: int | None = None
    """Largest weights of a text that are kept."""

    @classmethod
    def from_checkpoint(cls, init: str | Checkpoint, settings: StudentSettings) -> Self:
        """See Student; an encoder without a language model's head gets one that starts from its embeddings."""
        checkpoint = resolve(init)
        directory, tokenizer = checkpoint.directory, load_tokenizer(checkpoint)
        with loading("a masked language model", directory):
            layers = layers_override(load_config(directory), settings.num_layers, directory)
            model, info = load_model(AutoModelForMaskedLM, directory, **layers)
        refuse_missing(info, directory, may_be_new=_HEAD)
        if any("bias" not in name for name in info["missing_keys"]):  # a trained head may come without its bias
            _begin_head(model, set(info["missing_keys"]))
        return cls(model.float(), tokenizer, settings)

    def read(self, definition: Definition) -> None:
        """See Student; also pooling, activation and similarity."""
        super().read(definition)
        self.splade, self.normalize = definition.splade, definition.normalize
        self.max_active_dims = definition.max_active_dims

    def encode_queries(self, input_ids: Tensor, attention_mask: Tensor) -> States:
        """One vector of weights, none negative, for each text: (N, 1, V)."""
        logits = self.encoder(input_ids=input_ids, attention_mask=attention_mask).logits  # (N, T, V)
        kept = logits.float().masked_fill(attention_mask.unsqueeze(-1) == 0, 0.0)
        weights = self._weights(kept)  # (N, 1, V)
        if self.max_active_dims is not None and self.max_active_dims < weights.shape[2]:
            values, entries = weights.topk(self.max_active_dims, dim=2)
            weights = torch.zeros_like(weights).scatter_(2, entries, values)
        weights = functional.normalize(weights, dim=2) if self.normalize else weights
        return States(weights, attention_mask[:, :1].bool())

    def _weights(self, logits: Tensor) -> Tensor:
        """Weights (N, 1, V) from the logits (N, T, V) of tokens; those of padding are 0."""
        twice = self.splade.activation == "log1p_relu"
        if self.splade.strategy == "max":
            # Maximum first: log and relu are monotonic, and this order keeps (N, V) values instead of (N, T, V).
            weights = torch.log1p(logits.amax(1, keepdim=True).relu())
            return torch.log1p(weights) if twice else weights
        weights = torch.log1p(logits.relu())
        return (torch.log1p(weights) if twice else weights).sum(1, keepdim=True)

    def penalise(self, queries: States, passages: States) -> Tensor:
        """FLOPS of queries and of passages, (2,): squared mean weight of an entry in the batch, summed over entries."""
        return torch.stack([states.values[:, 0].mean(0).square().sum() for states in (queries, passages)])

    def head(self) -> list[torch.nn.Parameter]:
        """The language model's head."""
        return [weight for name, weight in self.encoder.named_parameters() if any(part in name for part in _HEAD)]

    def save(self, directory: Path) -> None:
        """Write a directory that SparseEncoder and AutoModelForMaskedLM load."""
        cast(PreTrainedModel, self.encoder).save_pretrained(directory)
        save_tokenizer(self.tokenizer, directory, self.settings.max_passage_tokens)
        pooling = {"pooling_strategy": "max", "activation_function": "relu", "embedding_dimension": None}
        base = "sentence_transformers"
        modules = [
            Module("", f"{base}.base.modules.transformer.Transformer"),
            Module("1_SpladePooling", f"{base}.sparse_encoder.modules.splade_pooling.SpladePooling", pooling),
        ]
        write_modules(
            directory,
            modules,
            transformer=transformer_facts(
                "fill-mask",
                "logits",
                document_length=self.settings.max_passage_tokens,
                query_length=self.settings.max_query_tokens,
            ),
            model={
                "model_type": "SparseEncoder",
                "prompts": {"query": "", "document": ""},
                "similarity_fn_name": "dot",
            },
        )


@torch.no_grad()
def _begin_head(model: PreTrainedModel, new: set[str]) -> None:
    """Initialise a new head so that a logit is a state's similarity to an embedding, with about one positive by chance.

    A random head gives most of the vocabulary some weight in every text, and scores of many thousands. This one passes
    the state on: around 3, GELU is nearly linear, and the layer normalisation after it removes the shift.
    """
    for name, module in model.named_modules():
        square = isinstance(module, nn.Linear) and module.in_features == module.out_features
        if square and f"{name}.weight" in new:
            nn.init.eye_(module.weight)
            nn.init.constant_(module.bias, _STRAIGHT)
    output = cast(nn.Linear, model.get_output_embeddings())  # type: ignore[no-untyped-call]
    spread = output.weight.square().mean().sqrt() * math.sqrt(output.in_features)  # of the logits of a unit state
    nn.init.constant_(output.bias, -float(spread) * NormalDist().inv_cdf(1 - 1 / output.out_features))
