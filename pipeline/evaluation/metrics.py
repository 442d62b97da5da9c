"""Effectiveness of runs, computed by `ir_measures` over all judged queries; a query that a run misses counts as 0.

nDCG uses the grades with linear gain. MRR and recall count a passage as relevant if its grade reaches the relevance
level.

Shapes: J judgements, Q queries, R ranked rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import ir_measures
import numpy as np
from ir_measures import RR, Measure, R, nDCG

from pipeline.evaluation.runs import Run

QUERIES_PER_PASS = 500
"""Queries that are evaluated at a time: bounds the number of Python objects."""


class Qrels(NamedTuple):
    """Judgements, by query."""

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
    queries = np.unique(qrels.query_id)
    values = {name: np.zeros(len(queries)) for name in named}
    names = {measure: name for name, measure in named.items()}
    for start in range(0, len(queries), QUERIES_PER_PASS):
        part = queries[start : start + QUERIES_PER_PASS]
        for metric in ir_measures.iter_calc(list(named.values()), list(_qrels(qrels, part)), list(_docs(run, part))):
            values[names[metric.measure]][start + int(np.searchsorted(part, int(metric.query_id)))] = metric.value
    return Evaluation(queries, values)


def _qrels(qrels: Qrels, queries: np.ndarray) -> Iterator[ir_measures.Qrel]:
    rows = np.isin(qrels.query_id, queries)
    for query, passage, grade in zip(*(column[rows].tolist() for column in qrels), strict=True):
        yield ir_measures.Qrel(str(query), str(passage), grade)


def _docs(run: Run, queries: np.ndarray) -> Iterator[ir_measures.ScoredDoc]:
    rows = np.isin(run.query_id, queries)
    columns = (run.query_id, run.passage_id, run.score)
    for query, passage, score in zip(*(column[rows].tolist() for column in columns), strict=True):
        yield ir_measures.ScoredDoc(str(query), str(passage), score)
