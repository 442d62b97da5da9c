"""Which rows run together: batches of equal length wherever there are enough rows of a length.

In: the token length of every row, a budget of tokens per batch. Out: row numbers per batch, longest first, so
that a budget too large for the memory fails at once. A pure function of both: batch shapes move the last bits
of a logit, so the same lengths and budget must give the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

PADDING_SHARE = 0.02
"""Padding that one batch may carry, as a share of the budget (of the budget, not of the batch: where few rows
share a length, small batches cost more than a few pad tokens)."""


def plan_batches(
    lengths: NDArray[np.integer], batch_tokens: int, padding_share: float = PADDING_SHARE
) -> list[NDArray[np.int64]]:
    """Row numbers of each batch; every row once, equal lengths in input order.

    A length with rows for half a batch or more is cut into even batches without padding. Rarer lengths are
    merged with their rare neighbours, up to `padding_share` of the budget. B x T stays within `batch_tokens`
    unless a single row exceeds it.
    """
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    batches: list[NDArray[np.int64]] = []
    rare: list[NDArray[np.int64]] = []
    starts = np.flatnonzero(np.diff(lengths[order], prepend=-1))
    for run in np.split(order, starts[1:]) if len(order) else []:
        capacity = max(1, batch_tokens // int(lengths[run[0]]))
        if 2 * len(run) >= capacity:
            batches += np.array_split(run, -(-len(run) // capacity))
        else:
            rare.append(run)
    if rare:
        batches += _merge(np.concatenate(rare), lengths, batch_tokens, padding_share)
    return sorted(batches, key=lambda rows: -int(lengths[rows[0]]))


def _merge(
    rows: NDArray[np.int64], lengths: NDArray[np.integer], batch_tokens: int, padding_share: float
) -> Iterator[NDArray[np.int64]]:
    """Cut rows sorted by length, longest first, wherever the budget or the padding would be exceeded."""
    allowed = padding_share * batch_tokens
    start, width, padding = 0, int(lengths[rows[0]]), 0
    for end, length in enumerate(lengths[rows].tolist()):
        padding += width - length
        if ((end - start + 1) * width > batch_tokens and end > start) or padding > allowed:
            yield rows[start:end]
            start, width, padding = end, length, 0
    yield rows[start:]
