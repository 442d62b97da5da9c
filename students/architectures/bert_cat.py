"""BERT_CAT: query and passage read together, the first token's state mapped to one score.

Nogueira and Cho 2019 (arXiv 1901.04085), in the form of Hofstätter et al. 2020 (arXiv 2010.02666), section
3.1. Deviation: the score comes from the head of transformers' sequence classifier for the encoder's family (with its
pooler or dense layer), so the directory is an ordinary one-label classifier. A checkpoint in the published form keeps
its single linear layer and is saved in that form.

Shapes: B queries, K candidates of each, T tokens of a pair.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from pipeline.errors import ModelError, UsageError
from students.architectures.base import Student, layers_override, refuse_missing, refuse_unused
from students.architectures.directory import save_tokenizer
from students.architectures.published import ENCODER_PREFIX, write_published
from students.architectures.shared_layers import share_layers
from students.settings import StudentSettings
from students.token_rows import TextRows
from teachers.checkpoints.bert_cat import HEAD, load_bert_cat
from teachers.checkpoints.bert_cat import BertCat as PublishedBertCat
from teachers.checkpoints.checkpoint import BERT_CAT, Checkpoint, resolve
from teachers.checkpoints.loading import load_config, load_model, load_tokenizer, loading
from teachers.tokens.pair_tokenizer import PairTokenizer
from teachers.tokens.token_types import decide_token_types, takes_token_types

# Names of heads and poolers in the model families; an encoder checkpoint lacks them.
_HEAD = ("classifier", "pooler", "pre_classifier", "head.", "score")


class BertCat(Student):
    """A cross-encoder with one label."""

    name: ClassVar[str] = "bert_cat"
    library_class: ClassVar[str] = "CrossEncoder"

    def __init__(
        self, encoder: nn.Module, tokenizer: PreTrainedTokenizerBase, settings: StudentSettings, with_types: bool
    ) -> None:
        """`with_types` says whether its inputs have token types."""
        super().__init__(encoder, tokenizer, settings)
        self.with_types = with_types

    @classmethod
    def from_checkpoint(cls, init: str | Checkpoint, settings: StudentSettings) -> Self:
        """See Student; a checkpoint without a head gets a new one."""
        checkpoint = resolve(init)
        directory = checkpoint.directory
        if checkpoint.is_bert_cat:
            refuse_unused(settings, directory, "num_layers", "shared_groups")
            with loading("a BERT_Cat", directory):
                published = load_bert_cat(checkpoint).float()
            tokenizer = load_tokenizer(checkpoint, published.config)
            types = decide_token_types(checkpoint, published, published.config, tokenizer)
            return cls(published, tokenizer, settings, types)
        tokenizer = load_tokenizer(checkpoint)
        with loading("a cross-encoder", directory):
            layers = layers_override(load_config(directory), settings.num_layers, directory)
            model, info = load_model(AutoModelForSequenceClassification, directory, num_labels=1, **layers)
        refuse_missing(info, directory, may_be_new=_HEAD)
        if info["missing_keys"]:  # an encoder, whose token types were there in pre-training whatever its tokenizer says
            types = takes_token_types(model, model.config) and (getattr(model.config, "type_vocab_size", None) or 0) > 1
        else:
            types = decide_token_types(checkpoint, model, model.config, tokenizer)
        if settings.shared_groups is not None:
            model = share_layers(model.float(), settings.shared_groups, directory)
        return cls(model.float(), tokenizer, settings, types)

    @property
    def input_limit(self) -> int:
        """See Student."""
        return self.settings.max_length_tokens

    @cached_property
    def _pairs(self) -> PairTokenizer:
        """The tokenizer of pairs.

        Raises:
            ModelError: the tokenizer's pairs cannot be assembled from token ids.
        """
        pairs = PairTokenizer(
            self.tokenizer,
            with_types=self.with_types,
            max_length_tokens=self.settings.max_length_tokens,
            truncation="longest_first",
        )
        if not pairs.assembles:
            raise ModelError(
                "this tokenizer's pairs cannot be assembled from token ids",
                where=pairs.name,
                expected="a fast tokenizer that cuts and pads on the right",
                todo="name a checkpoint with such a tokenizer",
            )
        return pairs

    def features(self, queries: TextRows, passages: TextRows) -> dict[str, Tensor]:
        """Tokens (B*K, T) of every pair; `of_query` (B,) carries the number of queries."""
        count = len(queries.rows)
        query_rows = np.repeat(queries.rows, len(passages.rows) // count)
        pairs = self._pairs.assembled(queries.texts, passages.texts, query_rows, passages.rows)
        batch = pairs.assemble(np.arange(len(query_rows)))
        mask = np.ones_like(batch.input_ids) if batch.attention_mask is None else batch.attention_mask
        arrays = {"input_ids": batch.input_ids, "attention_mask": mask, "token_type_ids": batch.token_type_ids}
        features = {name: torch.from_numpy(array) for name, array in arrays.items() if array is not None}
        return {**features, "of_query": torch.zeros(count, dtype=torch.int64)}

    def forward(self, *, in_batch: bool = False, **features: Tensor) -> Tensor:
        """Raw scores (B, K)."""
        if in_batch:
            raise UsageError(
                "bert_cat reads query and passage together and cannot score in-batch negatives",
                todo="choose a loss without in-batch negatives",
            )
        of_query = features.pop("of_query")
        return cast(Tensor, self.encoder(**features).logits).float().view(len(of_query), -1)

    def head(self) -> list[nn.Parameter]:
        """Classifier, and pooler if there is one."""
        return [weight for name, weight in self.encoder.named_parameters() if any(part in name for part in _HEAD)]

    def save(self, directory: Path) -> None:
        """Write a sequence classifier that AutoModelForSequenceClassification and CrossEncoder load."""
        save_tokenizer(self.tokenizer, directory, self.settings.max_length_tokens, self.with_types)
        if isinstance(self.encoder, PublishedBertCat):
            state: dict[str, Any] = {f"{ENCODER_PREFIX}{k}": v for k, v in self.encoder.encoder.state_dict().items()}
            state |= {f"{HEAD}{k}": v for k, v in self.encoder.head.state_dict().items()}
            write_published(directory, BERT_CAT, self.encoder.encoder, state)
            return
        model = cast(PreTrainedModel, self.encoder)
        # CrossEncoder of sentence-transformers would apply a sigmoid to one label by default.
        model.config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
        model.save_pretrained(directory)
