"""Seeds and epochs change what a step trains on; nothing else does."""

from itertools import combinations

import numpy as np
import pytest

from students.training.batches import Batch, JudgedPairs, ShuffledParts


def parts(seed):
    counts = (5, 9, 4)
    starts = np.cumsum([0, *counts])

    def read(number):
        ids = np.arange(starts[number], starts[number + 1], dtype=np.int32)
        return Batch(ids, np.stack([ids, ids], axis=1), None)

    return ShuffledParts(read, counts, seed)


def judged(seed):
    queries = np.repeat(np.arange(6, dtype=np.int32), 3)
    pool = np.arange(100, 160, dtype=np.int32)
    offsets = np.repeat(np.arange(6)[:, None] * 10 + [0, 10], 3, axis=0)
    positives = np.arange(18, dtype=np.int32)
    return JudgedPairs(queries, positives, offsets, pool, negatives=2, random_negatives=1, seed=seed)


@pytest.mark.parametrize(("make", "same_first"), [(parts, True), (judged, False)])
def test_every_epoch_and_every_seed_has_an_order_of_its_own(make, same_first):
    runs, drawn = {}, {}
    for seed in (0, 1):
        for epoch in (0, 1, 2):
            source = make(seed)
            batches = [source.batch(epoch, start, 4) for start in range(0, source.rows, 4)]
            rows = Batch.joined(batches)
            assert sorted(rows.passages[:, 0].tolist()) == list(range(source.rows))  # every row once
            again = Batch.joined([make(seed).batch(epoch, start, 4) for start in range(0, source.rows, 4)])
            assert np.array_equal(rows.passages, again.passages)
            runs[seed, epoch] = rows.passages[:, 0].tolist()
            drawn[seed, epoch] = {tuple(row) for row in rows.passages.tolist() if row[0] == 7}
    for one, other in combinations(runs, 2):
        same = one[1] == other[1] == 0 and same_first  # the first epoch of parts keeps the order on disk
        assert (runs[one] == runs[other]) == same, (one, other)
    if not same_first:
        assert len(set.union(*drawn.values())) > 3  # the same positive gets other negatives
