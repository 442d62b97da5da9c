"""The order of rows: each epoch has its own order of parts, and of the rows in a part."""

import numpy as np

from students.training.batches import Batch, ShuffledParts


def rows_of(part):
    query = np.arange(part * 4, part * 4 + 4, dtype=np.int32)
    return Batch(query, np.stack([query, query], 1), None)


def test_later_epochs_shuffle_parts_and_rows():
    source = ShuffledParts(rows_of, [4] * 5, seed=1)
    epochs = [source.batch(epoch, 0, 20).query.reshape(5, 4) for epoch in range(6)]
    assert epochs[0].ravel().tolist() == list(range(20))
    parts = [tuple((epoch[:, 0] // 4).tolist()) for epoch in epochs]
    assert all(sorted(order) == list(range(5)) for order in parts) and len(set(parts)) == 6
    inside = [tuple(epoch[epoch[:, 0] // 4 == 2][0].tolist()) for epoch in epochs]
    assert all(sorted(rows) == [8, 9, 10, 11] for rows in inside) and len(set(inside)) > 3
    other = ShuffledParts(rows_of, [4] * 5, seed=2)
    assert other.batch(1, 0, 20).query.tolist() != epochs[1].ravel().tolist()
