"""Students that encode query and passage separately and then let the two encodings interact.

Passages can be encoded in advance; a query then costs its encoding and the interactions.

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
    """The encodings of N texts."""

    values: Tensor
    """(N, T, D), or (N, 1, D) if a text is one vector; float32."""
    mask: Tensor
    """(N, T), True for vectors that count in the interaction."""

    def take(self, rows: Tensor) -> States:
        """The given rows (n,)."""
        return States(self.values[rows], self.mask[rows])


def exactly(states: States) -> torch.autocast:
    """A context without autocast: in half precision, sums over tokens round away the differences between passages."""
    return torch.autocast(states.values.device.type, enabled=False)


class SeparateStudent(Student):
    """A student with one encoding for queries and one for passages."""

    sparse: ClassVar[bool] = False
    """Whether a text is one vector of mostly zeros, of which only the other values are stored."""
    training_scale: float = 1.0
    """Factor of the scores in training: `scale` for unit vectors, whose scores are small, else 1."""

    @cached_property
    def query_frame(self) -> Frame:
        """Special tokens and length limit of a query."""
        return Frame.of(self.tokenizer, self.settings.max_query_tokens)

    @cached_property
    def passage_frame(self) -> Frame:
        """Special tokens and length limit of a passage."""
        return Frame.of(self.tokenizer, self.settings.max_passage_tokens)

    @property
    def input_limit(self) -> int:
        """See Student."""
        return max(self.query_frame.limit, self.passage_frame.limit)

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
        """States of N passages, independent of any query; as `encode_queries`, unless overridden."""
        return self.encode_queries(input_ids, attention_mask)

    @abstractmethod
    def interact(self, queries: States, passages: States) -> Tensor:
        """Scores (N,): query i with passage i."""

    def interact_all(self, queries: States, passages: States) -> Tensor:
        """Scores (B, N) of B queries with all of N passages."""
        passage_count, query_count = len(passages.values), len(queries.values)
        query = torch.arange(query_count, device=queries.values.device).repeat_interleave(passage_count)
        passage = torch.arange(passage_count, device=queries.values.device).repeat(query_count)
        return self.interact(queries.take(query), passages.take(passage)).view(query_count, passage_count)

    def features(self, queries: TextRows, passages: TextRows) -> dict[str, Tensor]:
        """Tokens of the queries (B, T) and of all passages (B*K, T)."""
        inputs = {"query": self.query_inputs(queries), "passage": self.passage_inputs(passages)}
        return {f"{side}_{name}": tensor for side, tensors in inputs.items() for name, tensor in tensors.items()}

    def forward(self, *, in_batch: bool = False, **features: Tensor) -> Tensor:
        """Scores (B, K), or (B, B*K) `in_batch`, times `training_scale`."""
        queries = self.encode_queries(features["query_input_ids"], features["query_attention_mask"])
        passages = self.encode_passages(features["passage_input_ids"], features["passage_attention_mask"])
        self.penalties = self.penalise(queries, passages)
        if in_batch:
            return self.interact_all(queries, passages) * self.training_scale
        count = len(queries.values)
        query = torch.arange(count, device=queries.values.device).repeat_interleave(len(passages.values) // count)
        return self.interact(queries.take(query), passages).view(count, -1) * self.training_scale

    def score(self, queries: Sequence[str], passages: Sequence[str]) -> Tensor:
        """Raw scores (B,) of pairs, as inference gives them: without `training_scale`."""
        return super().score(queries, passages) / self.training_scale

    def penalise(self, queries: States, passages: States) -> Tensor | None:  # noqa: ARG002
        """The `penalties` of a batch; None if the architecture has none."""
        return None
