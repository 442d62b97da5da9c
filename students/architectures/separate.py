"""Students that read query and passage apart: two encodings, then an interaction.

Passages can be encoded beforehand, and a query's work is the interaction alone.

Shapes: B queries, K candidates of each, N texts or pairs, T tokens, D width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from students.architectures.base import Student
from students.token_rows import Frame, TextRows


class States(NamedTuple):
    """What N texts have become."""

    values: Tensor
    """(N, T, D), or (N, 1, D) where a text is one vector; float32."""
    mask: Tensor
    """(N, T), True for what counts in the interaction."""

    def take(self, rows: Tensor) -> States:
        """The texts of some rows (N,)."""
        return States(self.values[rows], self.mask[rows])


def exactly(states: States) -> torch.autocast:
    """A block without autocast: a sum over a query's words in half precision would lose what tells passages apart."""
    return torch.autocast(states.values.device.type, enabled=False)


class SeparateStudent(Student):
    """A student with one encoding for queries and one for passages."""

    sparse: ClassVar[bool] = False
    """Whether a text is one vector that is zero almost everywhere, so that only the rest is worth storing."""
    training_scale: float = 1.0
    """What scores are multiplied with in training, where vectors of unit length keep them small."""

    @cached_property
    def query_frame(self) -> Frame:
        """The frame of a query."""
        return Frame.of(self.tokenizer, self.settings.max_query_tokens)

    @cached_property
    def passage_frame(self) -> Frame:
        """The frame of a passage."""
        return Frame.of(self.tokenizer, self.settings.max_passage_tokens)

    def query_inputs(self, texts: TextRows) -> dict[str, Tensor]:
        """Inputs of `encode_queries`, (N, T) each."""
        return self.query_frame.padded(texts)

    def passage_inputs(self, texts: TextRows) -> dict[str, Tensor]:
        """Inputs of `encode_passages`, (N, T) each."""
        return self.passage_frame.padded(texts)

    @abstractmethod
    def encode_queries(self, input_ids: Tensor, attention_mask: Tensor) -> States:
        """States of N queries."""

    def encode_passages(self, input_ids: Tensor, attention_mask: Tensor) -> States:
        """States of N passages, which do not depend on any query: made like a query's, unless overridden."""
        return self.encode_queries(input_ids, attention_mask)

    @abstractmethod
    def interact(self, queries: States, passages: States) -> Tensor:
        """Scores (N,) of N queries, each with the passage beside it."""

    def interact_all(self, queries: States, passages: States) -> Tensor:
        """Scores (B, N) of B queries with all of N passages."""
        many, few = len(passages.values), len(queries.values)
        query = torch.arange(few, device=queries.values.device).repeat_interleave(many)
        passage = torch.arange(many, device=queries.values.device).repeat(few)
        return self.interact(queries.take(query), passages.take(passage)).view(few, many)

    def features(self, queries: TextRows, passages: TextRows) -> dict[str, Tensor]:
        """Tokens of the queries (B, T) and of all passages (B*K, T)."""
        inputs = {"query": self.query_inputs(queries), "passage": self.passage_inputs(passages)}
        return {f"{kind}_{name}": tensor for kind, own in inputs.items() for name, tensor in own.items()}

    def forward(self, *, in_batch: bool = False, **features: Tensor) -> Tensor:
        """Scores (B, K), or (B, B*K) `in_batch`, times `training_scale`."""
        queries = self.encode_queries(features["query_input_ids"], features["query_attention_mask"])
        passages = self.encode_passages(features["passage_input_ids"], features["passage_attention_mask"])
        self.penalties = self.penalise(queries, passages)
        if in_batch:
            return self.interact_all(queries, passages) * self.training_scale
        few, many = len(queries.values), len(passages.values)
        own = torch.arange(few, device=queries.values.device).repeat_interleave(many // few)
        return self.interact(queries.take(own), passages).view(few, -1) * self.training_scale

    def score(self, queries: Sequence[str], passages: Sequence[str]) -> Tensor:
        """Raw scores (B,) of pairs of texts, as they are in use: without `training_scale`."""
        return super().score(queries, passages) / self.training_scale

    def penalise(self, queries: States, passages: States) -> Tensor | None:  # noqa: ARG002
        """See `penalties`."""
        return None
