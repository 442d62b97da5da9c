"""Distributions of the teachers' scores, and how often teachers agree, on whole shards evenly spaced among all.

Agreement is counted over candidates, a relevant passage with another passage of its query: two teachers agree if they
order the two passages alike. The same inputs give the same shards.

Shapes: N pairs, M candidates, K teachers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.scores.scores import ScoreSet, read_scores
from pipeline.tables.parts import open_part
from pipeline.triples.ensemble import Sample

MOST_PAIRS = 2_000_000
BINS = 60


@dataclass(frozen=True)
class Agreement:
    """Score distributions of some teachers, and their agreement."""

    teachers: list[str]
    pairs: int
    shards: int
    """Number of shards that were read."""
    edges: np.ndarray
    """(BINS + 1,) edges of the bins in raw logits, the same for all teachers."""
    relevant: np.ndarray
    """(K + 1, BINS) relevant pairs in each bin; the last row is for the mean of all teachers."""
    unjudged: np.ndarray
    """(K + 1, BINS) unjudged pairs."""
    irrelevant: np.ndarray
    """(K + 1, BINS) pairs judged not relevant."""
    spreads: list[float]
    """(K,) standard deviations of the scores."""
    correlations: np.ndarray
    """(K, K) Pearson correlations of the scores."""
    alike: np.ndarray
    """(K, K) fraction of the candidates that two teachers order alike; NaN without candidates."""
    right: np.ndarray
    """(K + 1,) fraction of the candidates whose relevant passage has the higher score."""
    candidates: int


def score_agreement(scores: Sequence[ScoreSet], most_pairs: int = MOST_PAIRS) -> Agreement:
    """Compare teachers on all shards, or on evenly spaced ones that hold about `most_pairs` pairs."""
    pairs = scores[0].pairs
    count = len(pairs.paths)
    per_shard = max(1, pairs.pairs // count)
    read = min(count, max(1, most_pairs // per_shard))
    chosen = [count * i // read for i in range(read)]
    sample, irrelevant, unjudged = _load(scores, chosen)
    every = np.column_stack([sample.scores, sample.scores.mean(axis=1)])  # (N, K + 1)
    low, high = float(every.min()), float(every.max())
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    margins = sample.margins()  # (M, K)
    orders = np.sign(margins)
    k = len(scores)
    with np.errstate(invalid="ignore"):
        alike = np.array(
            [[np.mean(orders[:, i] == orders[:, j]) if len(orders) else np.nan for j in range(k)] for i in range(k)]
        )
        means = np.column_stack([margins, margins.mean(axis=1)])
        right = (means > 0).mean(axis=0) if len(means) else np.full(k + 1, np.nan)
    return Agreement(
        [teacher.teacher for teacher in scores],
        len(every),
        read,
        edges,
        _binned(every[sample.positive], edges),
        _binned(every[unjudged], edges),
        _binned(every[irrelevant], edges),
        sample.spread.tolist(),
        np.array(sample.correlations()),
        alike,
        right,
        len(margins),
    )


def _load(scores: Sequence[ScoreSet], chosen: Sequence[int]) -> tuple[Sample, np.ndarray, np.ndarray]:
    """The sample, a mask (N,) of its pairs judged not relevant, and a mask (N,) of its unjudged pairs."""
    queries, grades, judged, values = [], [], [], []
    for number in chosen:
        file, _ = open_part(scores[0].pairs.paths[number])
        with file:
            table = file.read(columns=["query_id", "grade"])
        grade = table.column("grade")
        queries.append(table.column("query_id").to_numpy())
        judged.append(grade.is_valid().to_numpy())
        grades.append(grade.fill_null(0).to_numpy())
        values.append(np.stack([read_scores(teacher.paths[number]) for teacher in scores], axis=1).astype(np.float64))
    query, grade, known = (np.concatenate(parts) for parts in (queries, grades, judged))
    positive = grade >= 1
    return Sample(query, positive, ~positive, np.concatenate(values)), known & ~positive, ~known


def _binned(scores: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Counts (K + 1, BINS) of scores (N, K + 1)."""
    return np.array([np.histogram(column, edges)[0] for column in scores.T])
