"""The validation measure of training: nDCG@10 of the student re-ranking a retriever's lists.

The settings state the subset: a stable sample of a split's judged queries, and the first passages of each query's list.
Every judged query of the sample counts, and a query that is its own passage is no hit, as in `evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from jobs.ranking.candidates import candidates_of
from jobs.ranking.evaluate import identical_ids_to_ignore, split_qrels
from jobs.scoring.shard import pairs_with_texts
from pipeline.collection.texts import Texts
from pipeline.evaluation.metrics import evaluate_run
from pipeline.evaluation.runs import rank_rows
from pipeline.storage.workspace import Workspace
from students.settings import TrainSettings

if TYPE_CHECKING:
    from students.architectures.base import Student

MEASURE = "nDCG@10"


def reranking_measure(workspace: Workspace, settings: TrainSettings) -> Callable[[Student], float]:
    """The validation measure of `settings`; reads texts and candidates once.

    Raises:
        WorkspaceError: the split has no judgements, or its candidates have not been retrieved.
    """
    from students.inference.scoring import scorer_of

    qrels = split_qrels(workspace, settings.eval_split, settings.eval_queries)
    queries = np.unique(qrels.query_id)
    query, passage, score = candidates_of(workspace, settings.eval_candidates, settings.eval_split, queries)
    ignored = identical_ids_to_ignore(workspace, None, queries)
    kept = np.full(len(query), True) if ignored is None else ~ignored.mask(query, passage)
    run = rank_rows(query[kept], passage[kept], score[kept], settings.eval_depth)
    ids = run.query_id, run.passage_id
    pairs = pairs_with_texts(ids, Texts(workspace, "queries"), Texts(workspace, "passages"))

    def measure(student: Student) -> float:
        ranked = rank_rows(*ids, scorer_of(student).score(pairs))
        return evaluate_run(ranked, qrels).means()[MEASURE]

    return measure
