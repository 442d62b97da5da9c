"""A language-model reranker at work in PyTorch, with the prefix of each query computed once.

All pairs of a query begin alike: system message, instruction, query. Their keys and values are computed once for each
query and used for all of its passages (prefix caching: Kwon et al. 2023). Attention is causal, so a prefix does not
depend on what follows it, and the scores are the same but for rounding.

A prefix is padded on the left and a passage on the right, so the tokens of a row lie side by side: relative positions
and sliding windows stay what they are without padding.

Shapes: P prefixes, B rows of a batch, H heads, S tokens of a prefix, T tokens after it, D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import DynamicCache

from teachers.checkpoints.language_model import LanguageModel
from teachers.engine.batching import plan_batches
from teachers.tokens.prompted_pairs import PromptedPairs

PADDING_SHARE = 0.1
"""Padding of a batch as a fraction of its budget; a decoder is too costly for batches of few rows."""
LEAST_PAIRS_PER_PREFIX = 1.5
"""Pairs per prefix from which computing prefixes separately pays."""


class Prefixes(NamedTuple):
    """Keys and values of P prefixes, padded on the left."""

    layers: list[tuple[Tensor, Tensor]]
    """Keys and values (P, H, S, D) of each layer."""
    lengths: Tensor
    """(P,) tokens."""

    def cache(self, rows: Tensor) -> DynamicCache:
        """The keys and values of the prefixes `rows` (B,), for a batch to continue."""
        width = int(self.lengths[rows].max())
        cache = DynamicCache()
        for number, (keys, values) in enumerate(self.layers):
            cache.update(keys[rows, :, keys.shape[2] - width :], values[rows, :, values.shape[2] - width :], number)
        return cache


class Decoder:
    """A decoder on a device."""

    def __init__(self, model: LanguageModel, dtype: torch.dtype, device: torch.device) -> None:
        """Take over a float32 model on the CPU; the head stays float32."""
        self._model, self._device = model, device
        self._module = model.module.to(device, dtype).eval()
        self._head: nn.Module = self._module.score if model.tokens is None else self._module.get_output_embeddings()
        _in_float32(self._head)
        self._decoder: nn.Module = self._module.base_model if model.tokens is None else self._module

    @torch.inference_mode()
    def scores(
        self,
        pairs: PromptedPairs,
        rows: NDArray[np.int64],
        budget: int,
        on_batch: Callable[[NDArray[np.int64], int], None] = lambda rows, tokens: None,
    ) -> NDArray[np.float32]:
        """Scores (len(rows),) of pairs.

        Args:
            pairs: the tokens.
            rows: of `pairs`.
            budget: tokens of a batch.
            on_batch: receives positions in `rows` and the tokens computed.
        """
        scores = np.full(len(rows), np.nan, np.float32)
        for chunk, prefixes, number in self._chunks(pairs, rows, budget):
            lengths = pairs.lengths[rows[chunk]] - (pairs.prefix_lengths[rows[chunk]] if prefixes else 0)
            for batch in plan_batches(lengths, budget, PADDING_SHARE):
                tokens = pairs.assemble(rows[chunk[batch]], without_prefix=prefixes is not None)
                which = None if number is None else torch.from_numpy(number[batch]).to(self._device)
                scores[chunk[batch]] = self._run(tokens.input_ids, lengths[batch], prefixes, which).cpu().numpy()
                on_batch(chunk[batch], tokens.input_ids.size)
        return scores

    def _chunks(
        self, pairs: PromptedPairs, rows: NDArray[np.int64], budget: int
    ) -> Iterator[tuple[NDArray[np.int64], Prefixes | None, NDArray[np.int64] | None]]:
        """Positions in `rows` whose prefixes fit into the budget together, the prefixes, and each position's prefix.

        Prefixes are None where too few pairs share them.
        """
        prefix = pairs.prefix[rows]
        order = np.argsort(prefix, kind="stable")
        starts = np.flatnonzero(np.diff(prefix[order], prepend=-1))
        groups = np.split(order, starts[1:]) if len(order) else []
        waiting: list[NDArray[np.int64]] = []
        used = 0
        for group in groups:
            length = int(pairs.prefix_lengths[rows[group[0]]])
            if waiting and used + length > budget:
                yield self._chunk(pairs, rows, waiting)
                waiting, used = [], 0
            waiting.append(group)
            used += length
        if waiting:
            yield self._chunk(pairs, rows, waiting)

    def _chunk(
        self, pairs: PromptedPairs, rows: NDArray[np.int64], groups: list[NDArray[np.int64]]
    ) -> tuple[NDArray[np.int64], Prefixes | None, NDArray[np.int64] | None]:
        chunk = np.concatenate(groups)
        if len(chunk) < LEAST_PAIRS_PER_PREFIX * len(groups):
            return chunk, None, None
        number = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        return chunk, self._prefixes([pairs.prefix_ids(rows[group[0]]) for group in groups]), number

    def _prefixes(self, prefixes: list[NDArray[np.int32]]) -> Prefixes | None:
        lengths = np.array([len(ids) for ids in prefixes])
        if not lengths.all():
            return None
        width = int(lengths.max())
        ids = np.zeros((len(prefixes), width), np.int64)
        for line, prefix in zip(ids, prefixes, strict=True):
            line[width - len(prefix) :] = prefix
        mask = np.arange(width) >= width - lengths[:, None]
        cache = DynamicCache()
        self._forward(ids, mask, np.maximum(np.arange(width) - (width - lengths)[:, None], 0), cache)
        return Prefixes(
            [(layer.keys, layer.values) for layer in cache.layers], torch.from_numpy(lengths).to(self._device)
        )

    def _run(
        self, ids: NDArray[np.int64], lengths: NDArray[np.int64], prefixes: Prefixes | None, which: Tensor | None
    ) -> Tensor:
        """Scores (B,) of rows of tokens (B, T) that continue their prefixes."""
        rows, width = ids.shape
        inside = np.arange(width) < lengths[:, None]
        positions = np.broadcast_to(np.arange(width), ids.shape)
        cache = None
        if prefixes is not None and which is not None:
            before = prefixes.lengths[which].cpu().numpy()
            cache = prefixes.cache(which)
            longest = int(before.max())
            inside = np.concatenate([np.arange(longest) >= longest - before[:, None], inside], 1)
            positions = positions + before[:, None]
        states = self._forward(ids, inside, positions, cache)
        last = torch.from_numpy(lengths - 1).to(self._device)
        outputs = states[torch.arange(rows, device=self._device), last]
        if self._model.tokens is None:
            outputs = self._head(outputs)
        outputs = outputs.float()
        return outputs[:, 0] - outputs[:, 1] if outputs.shape[1] == 2 else outputs[:, 0]

    def _forward(
        self, ids: NDArray[np.int64], mask: NDArray[np.bool_], positions: NDArray[np.int64], cache: DynamicCache | None
    ) -> Tensor:
        """The head's outputs (B, T, 1 or 2), or the last layer's states (B, T, width) for a classification head."""
        inputs: dict[str, Any] = {
            "input_ids": torch.from_numpy(ids).to(self._device),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)).to(self._device),
            "position_ids": torch.from_numpy(np.array(positions)).to(self._device),
        }
        output = self._decoder(**inputs, past_key_values=cache, use_cache=cache is not None)
        found: Tensor = output.last_hidden_state if self._model.tokens is None else output.logits
        return found


def _in_float32(head: nn.Module) -> None:
    """Run a linear layer in float32, whatever its input."""
    head.float()
    plain = head.forward
    head.forward = lambda states: plain(states.float())  # type: ignore[method-assign, assignment]
