"""Effectiveness by `ir_measures`: every judged query counts, one that a run misses scores 0.

nDCG uses the grades with linear gain; MRR and recall count a passage as relevant from the relevance level on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import ir_measures
import numpy as np
from ir_measures import RR, Measure, R, nDCG

from pipeline.evaluation.runs import Run

QUERIES_PER_PASS = 500


class Qrels(NamedTuple):
    """J judgements, by query."""

    query_id: np.ndarray  # (J,) int32
    passage_id: np.ndarray  # (J,) int32
    grade: np.ndarray  # (J,) int8


def measures(relevance_level: int = 1) -> dict[str, Measure]:
    """What is measured, by the name shown."""
    return {
        "MRR@10": RR(rel=relevance_level) @ 10,
        "nDCG@10": nDCG @ 10,
        "Recall@10": R(rel=relevance_level) @ 10,
        "Recall@100": R(rel=relevance_level) @ 100,
        "Recall@1000": R(rel=relevance_level) @ 1000,
    }


class Evaluation(NamedTuple):
    """Values of each measure over the judged queries."""

    query_id: np.ndarray  # (Q,) int32
    values: dict[str, np.ndarray]  # measure → (Q,)

    def means(self) -> dict[str, float]:
        """Mean of each measure over all judged queries."""
        return {name: float(values.mean()) for name, values in self.values.items()}


def evaluate_run(run: Run, qrels: Qrels, relevance_level: int = 1) -> Evaluation:
    """Evaluate a run on all queries that have a judgement."""
    named = measures(relevance_level)
    queries = np.unique(qrels.query_id)
    values = {name: np.zeros(len(queries)) for name in named}
    names = {measure: name for name, measure in named.items()}
    for start in range(0, len(queries), QUERIES_PER_PASS):
        part = queries[start : start + QUERIES_PER_PASS]
        for found in ir_measures.iter_calc(list(named.values()), list(_qrels(qrels, part)), list(_docs(run, part))):
            values[names[found.measure]][start + int(np.searchsorted(part, int(found.query_id)))] = found.value
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
