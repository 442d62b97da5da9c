"""Effectiveness of runs, computed by `ir_measures` over all judged queries; a query that a run misses counts as 0.

nDCG uses the grades with linear gain. MRR and recall count a passage as relevant if its grade reaches the relevance
level.

Shapes: J judgements, Q queries, R ranked rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import ir_measures
import numpy as np
from ir_measures import RR, Measure, R, nDCG

from pipeline.evaluation.runs import Run

QUERIES_PER_PASS = 500
"""Queries that are evaluated at a time: bounds the number of Python objects."""


class Qrels(NamedTuple):
    """Judgements, by query, in any order."""

    query_id: np.ndarray  # (J,) int32
    passage_id: np.ndarray  # (J,) int32
    grade: np.ndarray  # (J,) int8


def measures(relevance_level: int = 1) -> dict[str, Measure]:
    """The measures by name: MRR, nDCG (Järvelin and Kekäläinen 2002) and recall.

    >>> list(measures())
    ['MRR@10', 'nDCG@10', 'Recall@10', 'Recall@100', 'Recall@1000']
    """
    return {
        "MRR@10": RR(rel=relevance_level) @ 10,
        "nDCG@10": nDCG @ 10,
        "Recall@10": R(rel=relevance_level) @ 10,
        "Recall@100": R(rel=relevance_level) @ 100,
        "Recall@1000": R(rel=relevance_level) @ 1000,
    }


class Evaluation(NamedTuple):
    """Value of each measure for each judged query."""

    query_id: np.ndarray  # (Q,) int32
    values: dict[str, np.ndarray]  # measure → (Q,)

    def means(self) -> dict[str, float]:
        """Mean of each measure over all judged queries."""
        return {name: float(values.mean()) for name, values in self.values.items()}


def evaluate_run(run: Run, qrels: Qrels, relevance_level: int = 1) -> Evaluation:
    """Evaluate a run on all queries that have a judgement.

    >>> ids = np.array([7, 8], np.int32)
    >>> run = Run(np.zeros(2, np.int32), ids, np.array([1, 2], np.int32), np.array([0.9, 0.4], np.float32))
    >>> qrels = Qrels(np.zeros(1, np.int32), np.array([8], np.int32), np.array([1], np.int8))
    >>> evaluate_run(run, qrels).means()["MRR@10"]
    0.5
    """
    named = measures(relevance_level)
    names = {measure: name for name, measure in named.items()}
    order = np.argsort(qrels.query_id, kind="stable")
    judged = [column[order] for column in qrels]
    ranked = [run.query_id, run.passage_id, run.score]
    queries = np.unique(qrels.query_id)
    values = {name: np.zeros(len(queries)) for name in named}
    for start in range(0, len(queries), QUERIES_PER_PASS):
        part = queries[start : start + QUERIES_PER_PASS]
        judgements = [ir_measures.Qrel(*row) for row in _rows(judged, part)]
        documents = [ir_measures.ScoredDoc(*row) for row in _rows(ranked, part)]
        for metric in ir_measures.iter_calc(list(named.values()), judgements, documents):
            values[names[metric.measure]][start + int(np.searchsorted(part, int(metric.query_id)))] = metric.value
    return Evaluation(queries, values)


def _rows(columns: Sequence[np.ndarray], queries: np.ndarray) -> Iterator[tuple[str, str, Any]]:
    """Rows (query, passage, number) of some queries (ascending); the columns are sorted by query."""
    first, last = columns[0].searchsorted(queries[0]), columns[0].searchsorted(queries[-1], side="right")
    kept = np.isin(columns[0][first:last], queries)
    for query, passage, number in zip(*(column[first:last][kept].tolist() for column in columns), strict=True):
        yield str(query), str(passage), number
