"""Counts, for many thresholds in one pass over the scores, the triples and queries that each would keep.

Candidates are those of `build-triples` without a threshold. The counts also estimate how many relevant passages a
threshold would take as negatives: on queries with several relevant passages, each in turn is treated as unjudged.

Shapes: M margins, T thresholds.
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
from pipeline.triples.scales import is_fitted, scale_warnings
from pipeline.triples.settings import TripleSettings
from pipeline.triples.shard import ShardWorker

USUAL_THRESHOLD = 3.0
USUAL_SPREAD = 4.0
"""Standard deviation of margins, in raw logits, for which a threshold of 3 is usual: a rule of thumb."""


class ThresholdRow(NamedTuple):
    """The counts for one threshold."""

    threshold: float
    triples: int
    queries: int
    held_out: int
    """Relevant passages that would be taken as negatives if they were unjudged, counted for each positive."""


@dataclass(frozen=True)
class Explored:
    """The counts for all thresholds."""

    teachers: list[str]
    rows: list[ThresholdRow]
    candidates: int
    queries: int
    """Queries with candidates."""
    held_out: int
    """Pairs of a positive and another relevant passage of its query: the size of the estimate's sample."""
    spread: float
    """Standard deviation of the margins of all candidates."""
    inputs: dict[str, str]
    """Content fingerprints of the pairs and scores that were read, by dataset."""
    scale_warnings: list[str]
    """Sentences about teachers whose scores should not be averaged as they are."""

    @property
    def equivalent(self) -> float:
        """The threshold on this scale that corresponds to 3 on the usual one."""
        return USUAL_THRESHOLD * self.spread / USUAL_SPREAD

    @property
    def warning(self) -> str | None:
        """A warning if margins are on another scale than a threshold of 3 presumes, else None."""
        if USUAL_SPREAD / 2 <= self.spread <= USUAL_SPREAD * 2:
            return None
        return (
            f"the standard deviation of the margins is {self.spread:.3g}, not about {USUAL_SPREAD:g} logits as a "
            f"threshold of {USUAL_THRESHOLD:g} presumes; on this scale it would be about {self.equivalent:.3g}"
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
    """Count what each threshold would keep.

    Args:
        workspace: where pairs and scores are.
        settings: filters and ensemble; the threshold in them is ignored.
        thresholds: (T,) ascending.
        teachers: names of the teachers; all that have scored if empty.
        resources: threads, memory and disk.
        on_progress: called with the shards done and the number of all shards.

    Raises:
        UsageError: the thresholds do not ascend.
        WorkspaceError: as `build_triples`.
        PrepError: there are no candidates.
    """
    grid = np.array(thresholds, np.float64)
    if not len(grid) or not np.isfinite(grid).all() or (np.diff(grid) <= 0).any():
        raise UsageError("thresholds must be numbers that ascend", found=list(thresholds))
    resources, unfiltered = resources or Resources(), replace(settings, threshold=None)
    stage = "explore-threshold"
    with workspace.exclusive(stage), workspace.staging(stage) as staging:
        scored = current_scored_pairs(workspace, teachers)
        with scratch(workspace, resources, staging) as spill:
            plan, sample = make_plan(workspace, scored, unfiltered, Triples(), resources, staging, spill)
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
    fitted = is_fitted(vars(settings))
    warnings = scale_warnings(plan.ensemble, sample.spread.tolist(), sample.correlations(), fitted=fitted)
    return counted.explored(scored, warnings)


class _Counted:
    """Histograms (T + 1,) of how many thresholds a margin reaches."""

    def __init__(self, grid: np.ndarray) -> None:
        self.grid = grid
        self.triples, self.query_bests, self.held_out = (np.zeros(len(grid) + 1, np.int64) for _ in range(3))
        self.candidates, self.sum, self.squares = 0, 0.0, 0.0

    def add(self, worker: ShardWorker) -> None:
        """Count the shard that the worker measured last."""
        connection = worker.connection
        margins = "SELECT margin FROM candidates WHERE reason = 0 ORDER BY query_id, positive_id, negative_id"
        bests = "SELECT max(margin) AS margin FROM candidates WHERE reason = 0 GROUP BY query_id"
        values = connection.execute(margins).fetchnumpy()["margin"]
        self.triples += self._reached(values)
        self.query_bests += self._reached(connection.execute(bests).fetchnumpy()["margin"])
        self.held_out += self._reached(worker.held_out())
        self.candidates += len(values)
        self.sum += float(values.sum())
        self.squares += float(np.square(values).sum())

    def _reached(self, margins: np.ndarray) -> np.ndarray:
        return np.bincount(np.searchsorted(self.grid, margins, side="right"), minlength=len(self.grid) + 1)

    def explored(self, scored: ScoredPairs, scale_warnings: list[str]) -> Explored:
        """The counts for each threshold: sums over the margins that reach it."""
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
            list(scored.teachers),
            rows,
            self.candidates,
            int(queries[0]),
            int(held_out[0]),
            spread,
            scored.contents,
            scale_warnings,
        )
