"""Model inputs of each training step: the global batch, split among workers and into micro-batches.

The rows of a step are a function of the source, its seed and the step. Worker r of W takes rows r::W of them and runs
them in A micro-batches, whose gradients are summed. The weights of the rows make the mean over workers and
micro-batches the mean over the global batch, also when an epoch ends with a smaller batch. A micro-batch without rows
runs one row of weight 0, because all workers must run the same number of micro-batches.

Shapes: G rows of the global batch, B rows of a micro-batch, K candidates, N = B x K passages.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from students.architectures.base import Student
from students.settings import TrainSettings
from students.token_rows import TextRows, Tokens
from students.training.batches import Batch, BatchSource
from students.training.in_batch import InBatchTeacher
from students.training.objective import Targets


@dataclass(frozen=True)
class Workers:
    """The rank of this worker, and the number of workers."""

    rank: int = 0
    count: int = 1

    @classmethod
    def here(cls) -> Workers:
        """Those of the process group; rank 0 of 1 without a group."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())
        return cls()


def micro_batches_per_step(settings: TrainSettings, workers: Workers) -> int:
    """The number of micro-batches A that a worker runs in each step.

    >>> micro_batches_per_step(TrainSettings("bert_dot", "x", "bce", batch_size=8, micro_batch_size=3), Workers(0, 2))
    2
    """
    share = -(-settings.batch_size // workers.count)
    return -(-share // (settings.micro_batch_size or share))


class StepInputs(IterableDataset[dict[str, Tensor]]):
    """Iterates over the micro-batches of every step from `start` on: inputs of the student, and targets."""

    def __init__(
        self,
        student: Student,
        source: BatchSource,
        tokens: Tokens,
        settings: TrainSettings,
        workers: Workers,
        *,
        steps: int,
        start: int,
        teacher: InBatchTeacher | None = None,
    ) -> None:
        self._student, self._source, self._tokens, self._settings = student, source, tokens, settings
        self._teacher = teacher
        self._workers, self._steps, self._start = workers, steps, start
        self._micro_batches = micro_batches_per_step(settings, workers)
        self.seconds = 0.0
        """Time that training waited for inputs, in seconds."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        size = self._settings.batch_size
        per_epoch = -(-self._source.rows // size)
        for step in range(self._start, self._steps):
            epoch, position = divmod(step, per_epoch)
            started = time.perf_counter()
            batch = self._source.batch(epoch, position * size, size)
            for rows, weights in self._split(batch):
                inputs = self._inputs(batch, rows, weights)
                self.seconds += time.perf_counter() - started
                yield inputs
                started = time.perf_counter()

    def _split(self, batch: Batch) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Rows (B,) of each micro-batch and their weights (B,)."""
        count = len(batch.query)
        weights = row_weights(batch, self._settings.agreement)
        share = np.arange(self._workers.rank, count, self._workers.count)
        largest_share = -(-self._settings.batch_size // self._workers.count)
        size = self._settings.micro_batch_size or largest_share
        for start in range(0, self._micro_batches * size, size):
            rows = share[start : start + size]
            if len(rows):
                yield rows, weights[rows] * np.float32(len(rows) * self._workers.count * self._micro_batches / count)
            else:
                yield np.zeros(1, np.int64), np.zeros(1, np.float32)

    def _inputs(self, batch: Batch, rows: NDArray[np.int64], weights: NDArray[np.float32]) -> dict[str, Tensor]:
        query, passages = batch.query[rows], batch.passages[rows]
        features = self._student.features(
            TextRows(self._tokens.queries, query), TextRows(self._tokens.passages, passages.ravel())
        )
        targets = {
            "query_ids": torch.from_numpy(np.ascontiguousarray(query)),
            "passage_ids": torch.from_numpy(passages),
            "weights": torch.from_numpy(weights),
        }
        if batch.teacher is not None:
            targets["teacher"] = torch.from_numpy(batch.teacher[rows])
        if self._teacher is not None:
            targets["in_batch"] = torch.from_numpy(self._teacher.scores(query, passages.ravel()))
        return {**features, **{_TARGET + name: tensor for name, tensor in targets.items()}}


_TARGET = "target_"


def split_inputs(inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], Targets]:
    """The student's inputs, and the targets."""
    features = {name: tensor for name, tensor in inputs.items() if not name.startswith(_TARGET)}
    targets = {name: inputs.get(_TARGET + name) for name in Targets._fields}
    return features, Targets(**targets)  # type: ignore[arg-type]


def row_weights(batch: Batch, agreement: float | None) -> NDArray[np.float32]:
    """Weights (G,): 1 / (1 + (margin_std / agreement)^2), divided by their mean.

    A row whose teachers' margins deviate by `agreement` (raw logits) counts half as much as a row on which the teachers
    agree. This weighting is ours, not from a paper.
    """
    if agreement is None or batch.margin_std is None:
        return np.ones(len(batch.query), np.float32)
    weights = 1 / (1 + (batch.margin_std.astype(np.float64) / agreement) ** 2)
    return np.asarray(weights / weights.mean(), np.float32)
