"""A language-model reranker at work in PyTorch, with the prefix of each query computed once.

All pairs of a query begin alike: system message, instruction, query. Their keys and values are computed once for each
query and used for all of its passages (prefix caching: Kwon et al. 2023). Attention is causal, so a prefix does not
depend on what follows it, and the scores are the same but for rounding.

A prefix is padded on the left and a passage on the right, so the tokens of a row lie side by side: relative positions
and sliding windows stay what they are without padding.

Shapes: P prefixes, B rows of a batch, H heads, S tokens of a prefix, T tokens after it, D width of a head.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from functools import cached_property
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import DynamicCache

from pipeline.errors import ModelError
from teachers.checkpoints.checkpoint import Checkpoint
from teachers.checkpoints.language_model import LanguageModel
from teachers.engine.batching import plan_batches
from teachers.engine.cost import measure_peak, weights_of
from teachers.engine.padding import PROBES, ROUNDING, SHARE
from teachers.engine.runners import check_ids
from teachers.engine.tuning import TYPICAL_TOKENS
from teachers.scorer import ProgressReporter, Work, pairs_of
from teachers.tokens.prompted_pairs import PromptedPairs, PromptTokenizer

log = logging.getLogger(__name__)

PADDING_SHARE = 0.1
"""Padding of a batch as a fraction of its budget; a decoder is too costly for batches of few rows."""
Sharing = Literal["prefixes", "batches", "nothing"]
"""What rows share: the prefix of their query and batches, batches alone, or neither."""
# What the cache of a decoder that is no stack of plain attention layers raises.
_FAILURES = (ValueError, IndexError, RuntimeError, AttributeError, TypeError, NotImplementedError)
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


class DecoderRunner:
    """Runs a language model; implements `teachers.engine.runners.Runner`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        model: LanguageModel,
        dtype: torch.dtype,
        device: torch.device,
        longest: int,
        sharing: Sharing = "prefixes",
    ) -> None:
        """Take over a float32 model on the CPU; its head stays float32. `longest` is the limit of a pair in tokens."""
        self.sharing = sharing
        self._checkpoint, self._model, self._device = checkpoint, model, device
        self._dtype, self._longest = dtype, longest
        module: Any = model.module.to(device, dtype).eval()
        self._module: nn.Module = module
        self._head: nn.Module = module.score if model.tokens is None else module.get_output_embeddings()
        _in_float32(self._head)
        self._decoder: nn.Module = module.base_model if model.tokens is None else module

    @property
    def name(self) -> str:
        """The checkpoint's name, for messages."""
        return self._checkpoint.name

    @property
    def facts(self) -> dict[str, Any]:
        """See `Runner`."""
        return {"rows_share": self.sharing}

    @torch.inference_mode()
    def run(
        self, encoded: PromptedPairs, rows: NDArray[np.int64], budget: int, reporter: ProgressReporter | None = None
    ) -> NDArray[np.float32]:
        """Scores of `rows`, in their order; a batch computes at most `budget` tokens unless one row exceeds it."""
        scores = np.full(len(rows), np.nan, np.float32)
        budget = 1 if self.sharing == "nothing" else budget
        begun = time.perf_counter()
        for chunk, prefixes, number in self._chunks(encoded, rows, budget):
            if prefixes is not None and reporter is not None:
                lengths = prefixes.lengths.cpu().numpy()
                reporter.report(self._work(0, 0 * lengths, lengths, time.perf_counter() - begun))
                begun = time.perf_counter()
            before = encoded.prefix_lengths[rows[chunk]] if prefixes is not None else np.zeros(len(chunk), np.int64)
            lengths = encoded.lengths[rows[chunk]] - before
            for batch in plan_batches(lengths, budget, PADDING_SHARE):
                tokens = encoded.assemble(rows[chunk[batch]], without_prefix=prefixes is not None)
                check_ids(tokens, self._model.vocabulary, self._checkpoint)
                which = None if number is None else torch.from_numpy(number[batch]).to(self._device)
                scores[chunk[batch]] = self._run(tokens.input_ids, lengths[batch], prefixes, which).cpu().numpy()
                if reporter is not None:
                    busy = time.perf_counter() - begun
                    reporter.report(self._work(len(batch), before[batch], lengths[batch], busy))
                    begun = time.perf_counter()
        return scores

    def try_budget(self, budget: int) -> None:
        """See `Runner`."""
        width = min(TYPICAL_TOKENS, self._longest)
        rows = max(1, budget // width)
        with torch.inference_mode():
            self._run(np.zeros((rows, width), np.int64), np.full(rows, width), None, None)

    @property
    def tunable(self) -> bool:
        """See `Runner`: rows that run alone have no batch."""
        return self.sharing != "nothing"

    @cached_property
    def _sizes(self) -> tuple[int, int]:
        """Weights that each token is multiplied with; and layers times the width of attention."""
        config = self._model.config.get_text_config()
        heads = int(config.num_attention_heads)
        head_width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
        return weights_of(self._module), int(config.num_hidden_layers) * heads * head_width

    @cached_property
    def _peak(self) -> float:
        return measure_peak(self._device, self._dtype)

    def _work(self, pairs: int, before: NDArray[np.int64], lengths: NDArray[np.int64], seconds: float) -> Work:
        """Work of rows that were padded to their longest and continue `before` tokens; prefixes are rows of no pair."""
        weights, attention = self._sizes
        seen = float((before * lengths + lengths * (lengths + 1) / 2).sum())
        flop = 2.0 * weights * float(lengths.sum()) + 4.0 * attention * seen
        return Work(pairs, len(lengths) * int(lengths.max()), flop, flop / self._peak, seconds)

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
        longest = 0  # prefixes are padded to their longest
        for group in groups:
            length = int(pairs.prefix_lengths[rows[group[0]]])
            if waiting and (len(waiting) + 1) * max(longest, length) > budget:
                yield self._chunk(pairs, rows, waiting)
                waiting, longest = [], 0
            waiting.append(group)
            longest = max(longest, length)
        if waiting:
            yield self._chunk(pairs, rows, waiting)

    def _chunk(
        self, pairs: PromptedPairs, rows: NDArray[np.int64], groups: list[NDArray[np.int64]]
    ) -> tuple[NDArray[np.int64], Prefixes | None, NDArray[np.int64] | None]:
        chunk = np.concatenate(groups)
        if self.sharing != "prefixes" or len(chunk) < LEAST_PAIRS_PER_PREFIX * len(groups):
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
        layers: Any = cache.layers
        made = torch.from_numpy(lengths).to(self._device)
        return Prefixes([(layer.keys, layer.values) for layer in layers], made)

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


def choose_sharing(runner: DecoderRunner, tokens: PromptTokenizer) -> Sharing:
    """What rows of this model may share, measured on pairs of a few queries, in float32.

    Args:
        runner: of the float32 model on the CPU.
        tokens: of the model.

    Raises:
        ModelError: not even a row alone can be computed.
    """
    queries, passages = (list(dict.fromkeys(texts)) for texts in zip(*PROBES, strict=True))
    encoded = tokens.encode(pairs_of(product(queries, passages)))
    rows = np.arange(len(encoded.lengths))
    found: dict[Sharing, NDArray[np.float32]] = {}
    for sharing in ("nothing", "prefixes", "batches"):
        runner.sharing = sharing
        try:
            found[sharing] = runner.run(encoded, rows, 1 << 20)
        except _FAILURES as error:
            if sharing == "nothing":
                why = f"{type(error).__name__}: {error}".splitlines()[0][:300]
                raise ModelError("cannot compute a row of tokens", where=runner.name, found=why) from error
    alone = found["nothing"]
    if not np.isfinite(alone).all():
        raise ModelError("values that are not finite", where=runner.name, found="for a row of plain words, in float32")
    allowed = SHARE * float(alone.std()) + ROUNDING * float(np.abs(alone).max())
    equal = [sharing for sharing, scores in found.items() if np.abs(scores - alone).max() <= allowed]
    if "prefixes" in equal:
        return "prefixes"
    log.warning("%s: its scores move when keys and values of prefixes are used again; they are not", runner.name)
    return "batches" if "batches" in equal else "nothing"


def _in_float32(head: nn.Module) -> None:
    """Run a linear layer in float32, whatever its input."""
    head.float()
    plain = head.forward
    head.forward = lambda states: plain(states.float())
