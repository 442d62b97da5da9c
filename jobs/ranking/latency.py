"""How long a query takes: a student re-ranks the candidates of one query at a time, warm.

Hofstätter et al. 2020 (arXiv 2010.02666) re-rank 1,000 passages for a query; where an architecture reads passages
apart, its passages are encoded beforehand, and the query's work is its own encoding and the comparison.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jobs.ranking.candidates import candidates_of
from pipeline.collection.texts import Texts
from pipeline.errors import WorkspaceError
from pipeline.evaluation.runs import rank_rows
from pipeline.storage.workspace import Workspace
from teachers.scorer import Pairs
from teachers.settings import Dtype, ScoringSettings

WARM_UP = 3


class Latency(NamedTuple):
    """Of one student, in milliseconds a query."""

    student: str
    stored: bool
    """Whether passages were encoded beforehand."""
    queries: int
    candidates: float
    """Passages of a query, the mean."""
    median_ms: float
    p95_ms: float


def measure_latency(
    workspace: Workspace,
    student: str,
    checkpoint: str,
    queries: NDArray[np.int32],
    *,
    split: str,
    candidates: str = "bm25",
    depth: int = 1000,
    dtype: Dtype = "float32",
) -> Latency:
    """Time a student on some queries (Q,) of a split, after a few to warm up.

    Raises:
        WorkspaceError: their candidates have not been retrieved.
    """
    run = rank_rows(*candidates_of(workspace, candidates, split, queries), depth)
    found = np.unique(run.query_id)
    if not len(found):
        raise WorkspaceError(f"no candidates of {candidates} for split {split!r}", where=workspace.root)
    texts = Texts(workspace, "queries").take(found)
    lists = [run.passage_id[run.query_id == query] for query in found]
    time_one, stored = _timed(workspace, checkpoint, lists, dtype)
    for place in np.arange(WARM_UP) % len(found):
        time_one(int(place), texts[place])
    seconds = [time_one(place, text) for place, text in enumerate(texts)]
    sizes = float(np.mean([len(ids) for ids in lists]))
    median, late = (1000 * float(np.percentile(seconds, share)) for share in (50, 95))
    return Latency(student, stored, len(seconds), sizes, median, late)


def _timed(
    workspace: Workspace, checkpoint: str, lists: list[NDArray[np.int32]], dtype: Dtype
) -> tuple[Callable[[int, str], float], bool]:
    """What times the query at a place, given its text, and whether passages are encoded beforehand."""
    from students.inference.loading import architecture_of
    from students.inference.scorer import SeparateScorer
    from students.inference.scoring import load_student_scorer

    passages = Texts(workspace, "passages")
    if architecture_of(checkpoint) == "bert_cat":
        scorer = load_student_scorer(checkpoint, dtype)
        known = [passages.take(ids) for ids in lists]

        def jointly(place: int, text: str) -> float:
            rows = np.arange(len(known[place]), dtype=np.int32)
            pairs = Pairs([text], known[place], np.zeros_like(rows), rows)
            started = time.perf_counter()
            scorer.score(pairs)
            return time.perf_counter() - started

        return jointly, False
    separate = SeparateScorer.load(checkpoint, ScoringSettings(dtype=dtype))
    unique = np.unique(np.concatenate(lists))
    encoded = separate.encode_passages(passages.take(unique))

    def apart(place: int, text: str) -> float:
        rows = np.searchsorted(unique, lists[place])
        started = time.perf_counter()
        separate.score_encoded(separate.encode_queries([text]), encoded, np.zeros_like(rows), rows)
        return time.perf_counter() - started

    return apart, True
