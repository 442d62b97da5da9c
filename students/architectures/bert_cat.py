"""BERT_CAT: query and passage read together, the first token's state mapped to one score.

Nogueira and Cho 2019 (arXiv 1901.04085), in the form of Hofstätter et al. 2020 (arXiv 2010.02666), section
3.1. Deviation: the score is the sequence classifier's own head for the encoder's family (with its pooler or
dense layer where it has one), so that the directory is an ordinary one-label classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self, cast

from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from students.architectures.base import Student, layers_override, refuse_missing
from students.settings import StudentSettings
from teachers.checkpoint import resolve
from teachers.loading import load_config, load_model, load_tokenizer, loading

# Heads and poolers by the names that the families give them; an encoder checkpoint lacks them.
_HEAD = ("classifier", "pooler", "pre_classifier", "head.", "score")


class BertCat(Student):
    """A cross-encoder with one label."""

    name: ClassVar[str] = "bert_cat"

    @classmethod
    def from_checkpoint(cls, init: str, settings: StudentSettings) -> Self:
        """See Student; a checkpoint without a head gets a new one, drawn by torch's seed."""
        checkpoint = resolve(init)
        directory, tokenizer = checkpoint.directory, load_tokenizer(checkpoint)
        with loading("a cross-encoder", directory):
            layers = layers_override(load_config(directory), settings.num_layers, directory)
            model, info = load_model(AutoModelForSequenceClassification, directory, num_labels=1, **layers)
        refuse_missing(info, directory, may_be_new=_HEAD)
        return cls(model.float(), tokenizer, settings)

    def features(self, queries: Sequence[str], passages: Sequence[str]) -> dict[str, Tensor]:
        """Tokens (B*K, T) of every pair; `of_query` (B) only carries the number of queries."""
        k = len(passages) // len(queries)
        first = [query for query in queries for _ in range(k)]
        model = cast(PreTrainedModel, self.encoder)
        # Some tokenizers (ALBERT's) leave token types out unless asked, and the model then sees zeros.
        types = (getattr(model.config, "type_vocab_size", None) or 0) > 1
        encoded = self.tokenizer(
            first,
            list(passages),
            truncation="longest_first",
            max_length=self.settings.max_length_tokens,
            padding=True,
            return_tensors="pt",
            return_token_type_ids=types,
        )
        features = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        if types:
            features["token_type_ids"] = encoded["token_type_ids"]
        return {**features, "of_query": features["input_ids"].new_zeros(len(queries))}

    def forward(self, **features: Tensor) -> Tensor:
        """Raw scores (B, K)."""
        of_query = features.pop("of_query")
        return cast(Tensor, self.encoder(**features).logits).float().view(len(of_query), -1)

    def head(self) -> list[nn.Parameter]:
        """See Student."""
        return [weight for name, weight in self.encoder.named_parameters() if any(part in name for part in _HEAD)]

    def save(self, directory: Path) -> None:
        """Write a sequence classifier that AutoModelForSequenceClassification and CrossEncoder load."""
        model = cast(PreTrainedModel, self.encoder)
        # Read by sentence-transformers' CrossEncoder, whose default for one label is a sigmoid.
        model.config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
        model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
