"""Which positives of a query may share a row with which negatives.

A filter such as the threshold passes a negative for one positive and not for another. A row with several positives must
hold only negatives that are in the set with every positive of the row, or the export would undo the filter.

Shapes: G pairs of a query and a positive, sorted by query; M negatives, sorted by pair.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np


def equal_negatives(query: np.ndarray, negative: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Rows (G,), from 0: positives of a query share a row if their negatives are the same, in the same order.

    Args:
        query: (G,) query of each pair.
        negative: (M,) negatives of all pairs.
        starts: (G + 1,) first negative of each pair.
    """
    row = np.arange(len(query))
    for first, end in _several(query):
        seen: dict[bytes, int] = {}
        for pair in range(first, end):
            row[pair] = seen.setdefault(negative[starts[pair] : starts[pair + 1]].tobytes(), pair)
    return np.asarray(np.unique(row, return_inverse=True)[1])


def common_negatives(
    query: np.ndarray, positive: np.ndarray, negative: np.ndarray, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Masks (G,) of the positives and (M,) of the negatives that a row of a whole query keeps.

    The positive with most negatives comes first. Each other positive is kept if it has negatives in common with those
    that were kept before it; the row keeps the common ones. A passage that is also a positive of the query is kept as a
    positive alone; if all are, as in a circle of passages without a judged positive, all are kept.

    Args:
        query: (G,) query of each pair.
        positive: (G,) positive of each pair.
        negative: (M,) negatives of all pairs.
        starts: (G + 1,) first negative of each pair.
    """
    positives, negatives = np.ones(len(query), bool), np.ones(len(negative), bool)
    for first, end in _several(query):
        spans = [slice(starts[pair], starts[pair + 1]) for pair in range(first, end)]
        own = [np.setdiff1d(negative[span], positive[first:end]) for span in spans]
        common = max(own, key=len)
        kept = np.zeros(end - first, bool)
        for pair in sorted(range(end - first), key=lambda pair: -len(own[pair])):
            shared = np.intersect1d(common, own[pair])
            if len(shared) or not len(common):
                common, kept[pair] = shared, True
        positives[first:end] = kept
        negatives[starts[first] : starts[end]] = np.isin(negative[starts[first] : starts[end]], common)
    return positives, negatives


def _several(query: np.ndarray) -> list[tuple[int, int]]:
    """Ranges [first, end) of the pairs of each query that has several."""
    bounds = np.flatnonzero(np.diff(query, prepend=-1, append=-1))
    return [(first, end) for first, end in pairwise(bounds.tolist()) if end - first > 1]
