"""What each threshold would give, in one pass over the scores: triples and queries kept, relevant passages lost.

Candidates are those of `build-triples` without a threshold. How many relevant passages a threshold would take as
negatives is estimated on queries with several: each judged one in turn is looked at as if nobody had judged it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from pipeline.errors import PrepError, UsageError
from pipeline.storage.workspace import Workspace
from pipeline.triples.build import Resources, make_plan, scratch
from pipeline.triples.inputs import ScoredPairs, current_scored_pairs
from pipeline.triples.layouts import Triples
from pipeline.triples.settings import TripleSettings
from pipeline.triples.shard import ShardWorker

USUAL_THRESHOLD = 3.0
USUAL_SPREAD = 4.0
"""Standard deviation of margins, in raw logits, that a threshold of 3 presumes: a rule of thumb."""


class ThresholdRow(NamedTuple):
    """One line of the table."""

    threshold: float
    triples: int
    queries: int
    held_out: int
    """Judged relevant passages that would have been taken as negatives, one for each positive beside them."""


@dataclass(frozen=True)
class Explored:
    """The whole table."""

    teachers: list[str]
    rows: list[ThresholdRow]
    candidates: int
    queries: int
    """Queries with candidates."""
    held_out: int
    """Positives beside another relevant passage of their query: what the estimate stands on."""
    spread: float
    """Standard deviation of the candidates' margins."""
    inputs: dict[str, str]
    """Content fingerprints of the pairs and scores that were read, by dataset."""

    @property
    def equivalent(self) -> float:
        """What 3 would be on this scale."""
        return USUAL_THRESHOLD * self.spread / USUAL_SPREAD

    @property
    def warning(self) -> str | None:
        """Why 3 means nothing here, if so."""
        if USUAL_SPREAD / 2 <= self.spread <= USUAL_SPREAD * 2:
            return None
        return (
            f"margins spread by {self.spread:.3g} here, not by some {USUAL_SPREAD:g} logits as a threshold of "
            f"{USUAL_THRESHOLD:g} presumes; on this scale it would be about {self.equivalent:.3g}"
        )


def explore_thresholds(
    workspace: Workspace,
    settings: TripleSettings,
    thresholds: Sequence[float],
    *,
    teachers: Sequence[str] = (),
    resources: Resources | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Explored:
    """Count for every threshold, from the named teachers (all if none is named).

    Raises:
        UsageError: thresholds that do not ascend.
        WorkspaceError: as `build_triples`.
        PrepError: there are no candidates.
    """
    grid = np.array(thresholds, np.float64)
    if not len(grid) or not np.isfinite(grid).all() or (np.diff(grid) <= 0).any():
        raise UsageError("thresholds must be numbers that ascend", found=list(thresholds))
    resources, asked = resources or Resources(), replace(settings, threshold=None)
    stage = "explore-threshold"
    with workspace.exclusive(stage), workspace.staging(stage) as staging:
        scored = current_scored_pairs(workspace, teachers)
        with scratch(workspace, resources, staging) as spill:
            plan, _ = make_plan(workspace, scored, asked, Triples(), resources, staging, spill)
            counted = _Counted(grid)
            with ShardWorker(plan) as worker:
                for number in range(len(plan.shards)):
                    worker.load(number)
                    worker.measure()
                    counted.add(worker)
                    on_progress(number + 1, len(plan.shards))
    if not counted.candidates:
        raise PrepError(
            "no candidates: no query of the split has both a positive and a negative",
            todo="check --split and --relevance-level, and that the split was mined",
        )
    return counted.explored(scored)


class _Counted:
    """Counts by how many thresholds a margin reaches, (T + 1,)."""

    def __init__(self, grid: np.ndarray) -> None:
        self.grid = grid
        self.triples, self.query_bests, self.held_out = (np.zeros(len(grid) + 1, np.int64) for _ in range(3))
        self.candidates, self.sum, self.squares = 0, 0.0, 0.0

    def add(self, worker: ShardWorker) -> None:
        """Count the shard that was measured last."""
        connection = worker.connection
        margins = "SELECT margin FROM candidates WHERE reason = 0 ORDER BY query_id, positive_id, negative_id"
        bests = "SELECT max(margin) AS margin FROM candidates WHERE reason = 0 GROUP BY query_id"
        found = connection.execute(margins).fetchnumpy()["margin"]
        self.triples += self._reached(found)
        self.query_bests += self._reached(connection.execute(bests).fetchnumpy()["margin"])
        self.held_out += self._reached(worker.held_out())
        self.candidates += len(found)
        self.sum += float(found.sum())
        self.squares += float(np.square(found).sum())

    def _reached(self, margins: np.ndarray) -> np.ndarray:
        return np.bincount(np.searchsorted(self.grid, margins, side="right"), minlength=len(self.grid) + 1)

    def explored(self, scored: ScoredPairs) -> Explored:
        """The table."""
        triples, queries, held_out = (
            np.cumsum(counts[::-1])[::-1] for counts in (self.triples, self.query_bests, self.held_out)
        )
        rows = [
            ThresholdRow(float(t), int(triples[i]), int(queries[i]), int(held_out[i]))
            for i, t in enumerate(self.grid, 1)
        ]
        mean = self.sum / self.candidates
        spread = float(np.sqrt(max(self.squares / self.candidates - mean**2, 0)))
        return Explored(
            list(scored.teachers), rows, self.candidates, int(queries[0]), int(held_out[0]), spread, scored.contents
        )
