"""A batch source where each query comes once an epoch, with the next of its positives and of its negatives.

As in sentence-transformers' training scripts for MS MARCO (train_bi-encoder_mnrl.py, train_bi-encoder_margin-mse.py): a
query takes one of its positives and one of its negatives, and goes on to the next ones in the next epoch. Deviation:
a threshold may keep other negatives for each positive, so every positive has its own ring of negatives and sees all of
it. The row follows from the epoch alone, so any step can be read directly.

Shapes: B queries of a batch, G pairs of query and positive, R triples.
"""

from __future__ import annotations

import numpy as np

from pipeline.triples.turns import TripleTurns
from students.training.batches import Batch


class OnePerQuery:
    """Implements `students.training.batches.BatchSource`; seed and epoch draw the order of the queries."""

    def __init__(self, triples: TripleTurns, seed: int) -> None:
        self._triples, self._seed = triples, seed
        self._first = np.flatnonzero(np.diff(triples.query_id, prepend=-1))  # each query's first group
        self._groups = np.diff(np.append(self._first, len(triples.query_id)))
        self.rows = len(self._first)
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def batch(self, epoch: int, start: int, size: int) -> Batch:
        """See BatchSource."""
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self._seed, epoch)).permutation(self.rows)
        chosen, triples = self._order[1][start : start + size], self._triples  # (B,)
        groups = self._groups[chosen]
        # Every `groups` epochs a query has used each of its positives once: one round.
        rounds, position = np.divmod(epoch, groups)
        group = self._first[chosen] + position
        count = triples.start[group + 1] - triples.start[group]
        # Positives start at different points of their rings: negatives that they share come once a round each.
        row = triples.start[group] + (rounds + position * count // groups) % count
        return Batch(
            triples.query_id[group],
            np.stack([triples.positive_id[row], triples.negative_id[row]], axis=1),
            np.stack([triples.positive_score[row], triples.negative_score[row]], axis=1),
            triples.margin_std[row],
        )
