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


def different(make):
    """What a source gives in its first step, by seed and epoch: all different, or the test fails."""
    found = {(seed, epoch): make(seed).batch(epoch, 0, 12).passages.tolist() for seed in (0, 1) for epoch in (1, 2, 3)}
    assert all(found[one] != found[other] for one, other in combinations(found, 2))


def test_the_order_of_parts_and_the_draw_of_negatives_change_too():
    """Parts of one row have no order but that of the parts; a single positive none but that of its negatives."""
    rows = [Batch(np.array([i], np.int32), np.array([[i, i]], np.int32), None) for i in range(12)]
    different(lambda seed: ShuffledParts(rows.__getitem__, [1] * 12, seed))
    query, pool = np.zeros(1, np.int32), np.arange(1000, dtype=np.int32)
    offsets = np.array([[0, 1000]])
    different(lambda seed: JudgedPairs(query, query, offsets, pool, negatives=3, seed=seed))
    far = JudgedPairs(np.arange(2), np.arange(2), np.repeat(offsets, 2, axis=0), pool, negatives=3)
    first, second = (far.batch(0, start, 1).passages[0, 1:].tolist() for start in (0, 1))
    assert first != second  # each step has a draw of its own
