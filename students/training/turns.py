"""A source of batches where each query comes once an epoch, with the next of its positives and of its negatives.

As the training scripts of sentence-transformers for MS MARCO have it (train_bi-encoder_mnrl.py, -margin-mse.py): a
query takes one of its positives and one of its negatives, and goes on with the next ones at the next epoch. Deviation:
what passes a threshold may differ between positives, so each has its own ring of negatives, and sees all of it. The
places follow from the epoch alone, so any step can be asked for directly.
"""

from __future__ import annotations

import numpy as np

from pipeline.triples.turns import TripleTurns
from students.training.batches import Batch


class QueryTurns:
    """Implements `students.training.batches.BatchSource`; the order of the queries is drawn by seed and epoch."""

    def __init__(self, turns: TripleTurns, seed: int) -> None:
        self._turns, self._seed = turns, seed
        self._first = np.flatnonzero(np.diff(turns.query_id, prepend=-1))  # of each query, its first group
        self._groups = np.diff(np.append(self._first, len(turns.query_id)))
        self.rows = len(self._first)
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def batch(self, epoch: int, start: int, size: int) -> Batch:
        """See BatchSource."""
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self._seed, epoch)).permutation(self.rows)
        chosen, turns = self._order[1][start : start + size], self._turns
        groups = self._groups[chosen]
        turn, place = np.divmod(epoch, groups)
        group = self._first[chosen] + place
        count = turns.start[group + 1] - turns.start[group]
        # Positives begin apart in their rings: where they share their negatives, each of those comes once a round.
        row = turns.start[group] + (turn + place * count // groups) % count
        return Batch(
            turns.query_id[group],
            np.stack([turns.positive_id[row], turns.negative_id[row]], axis=1),
            np.stack([turns.positive_score[row], turns.negative_score[row]], axis=1),
            turns.margin_std[row],
        )
