"""Runs encoded pairs through a model in batches, with what the scorer needs to know about it.

A runner plans batches under a budget of tokens, runs them and reports the work of each. `EncoderRunner` is for models
that give a logit for a whole row of tokens; `teachers.engine.decoder` has the one for language models.

Shapes: N pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.tokens.pairs import TokenBatch
from teachers.checkpoints.checkpoint import Checkpoint
from teachers.checkpoints.cross_encoder import CrossEncoder
from teachers.engine.batching import PADDING_SHARE, plan_batches
from teachers.engine.cost import flop_of, measure_peak, weights_of
from teachers.engine.device import DTYPES
from teachers.engine.padding import Together
from teachers.engine.torch_model import Logits, RunningModel
from teachers.engine.tuning import TYPICAL_TOKENS
from teachers.scorer import ProgressReporter, Work
from teachers.settings import Dtype
from teachers.tokens.pair_tokenizer import EncodedPairs


class Runner(Protocol):
    """A loaded model at work."""

    @property
    def facts(self) -> dict[str, Any]:
        """How it works, as JSON values for a footer."""
        ...

    @property
    def tunable(self) -> bool:
        """Whether the budget matters to its speed."""
        ...

    def run(
        self, encoded: Any, rows: NDArray[np.int64], budget: int, reporter: ProgressReporter | None = None
    ) -> NDArray[np.float32]:
        """Scores of `rows`, in their order, in batches of about `budget` tokens."""
        ...

    def try_budget(self, budget: int) -> None:
        """Run a batch of that many tokens, as long as typical pairs."""
        ...


def check_ids(batch: TokenBatch, vocabulary: int | None, checkpoint: Checkpoint) -> TokenBatch:
    """The batch itself, if the model has an embedding for each of its ids.

    Raises:
        ModelError: it has not.
    """
    if vocabulary is not None and batch.input_ids.max(initial=0) >= vocabulary:
        raise ModelError(
            "its tokenizer gives ids beyond its embeddings",
            where=checkpoint.directory,
            expected=f"ids below {vocabulary}",
            found=int(batch.input_ids.max()),
            todo="save the tokenizer that the model was trained with beside its weights",
        )
    return batch


class EncoderRunner:
    """Runs a model whose forward pass gives a logit for each row; implements `Runner`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        model: CrossEncoder,
        running: RunningModel,
        device: torch.device,
        dtype: Dtype,
        *,
        together: Together,
        longest: int,
    ) -> None:
        """`longest` is the limit of a pair in tokens."""
        self._checkpoint, self._model, self.running = checkpoint, model, running
        self._device, self._dtype, self._together, self._longest = device, dtype, together, longest

    @property
    def facts(self) -> dict[str, Any]:
        """See `Runner`."""
        return {
            "rows_of_a_batch": self._together,
            "last_layer": "first token" if self.running.first_token else "all tokens",
        }

    @property
    def tunable(self) -> bool:
        """See `Runner`: rows that run alone have no batch."""
        return self._together != "alone"

    def run(
        self, encoded: EncodedPairs, rows: NDArray[np.int64], budget: int, reporter: ProgressReporter | None = None
    ) -> NDArray[np.float32]:
        """Scores of `rows`; one batch runs on the device while the next is put together."""
        lengths = encoded.lengths[rows]
        budget = 1 if self._together == "alone" else budget
        padding = PADDING_SHARE if self._together == "padded" and self.running.takes_padding else 0.0
        scores = np.full(len(rows), np.nan, np.float32)
        running: tuple[NDArray[np.int64], Callable[[], Logits]] | None = None
        for batch in [*plan_batches(lengths, budget, padding), None]:
            started = None if batch is None else (batch, self.running.start(self._assembled(encoded, rows[batch])))
            if running is not None:
                done, collect = running
                logits = collect()
                scores[done] = logits.values
                if reporter is not None:
                    reporter.report(self._work(lengths[done], logits.busy_seconds))
            running = started
        return scores

    def try_budget(self, budget: int) -> None:
        """See `Runner`."""
        width = min(TYPICAL_TOKENS, self._longest)
        ids = np.zeros((max(1, budget // width), width), np.int64)
        self.running.start(TokenBatch(ids, ids if self._model.gets_types else None, None))()

    def _assembled(self, encoded: EncodedPairs, rows: NDArray[np.int64]) -> TokenBatch:
        return check_ids(encoded.assemble(rows), self._model.vocabulary, self._checkpoint)

    @cached_property
    def _config(self) -> dict[str, Any]:
        return self._model.config.to_dict()

    @cached_property
    def _weights(self) -> int:
        return weights_of(self._model.module)

    @cached_property
    def _peak(self) -> float:
        """Operations a second in a large matrix product, as measured here."""
        return measure_peak(self._device, DTYPES.get(self._dtype, torch.bfloat16))

    def _work(self, lengths: NDArray[np.int64], busy_seconds: float) -> Work:
        flop = flop_of(self._config, lengths, first_token=self.running.first_token, weights=self._weights)
        tokens = len(lengths) * int(lengths.max())
        return Work(len(lengths), tokens, flop, flop / self._peak, busy_seconds)
