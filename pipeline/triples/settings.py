"""Settings of a build: which triples are kept. They are checked when made, and saved in every file of the set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from pipeline.errors import UsageError

Anchor = Literal["own", "min"]
EnsembleKind = Literal["mean", "weighted", "zscore"]
Strategy = Literal["top", "random", "log_random"]
Pairing = Literal["judged", "scored"]


@dataclass(frozen=True)
class TripleSettings:
    """Filters and ensemble. Bounds are inclusive: a margin equal to the threshold, or a score equal to its bound, is
    kept."""

    threshold: float | None = 3.0
    """Least margin, in logits of the ensemble; None keeps every negative."""
    threshold_on: str = "mean"
    """Whose margin must reach it: the ensemble's ("mean"), "all" teachers', "any" one's, or that of so many."""
    anchor: Anchor = "own"
    """What the threshold is measured from: the triple's own positive, or the query's lowest-scored one."""
    relative_margin: float | None = None
    """Least margin as a share of the anchor's absolute score."""
    min_score: float | None = None
    """Least ensemble score of a negative."""
    max_score: float | None = None
    """Largest ensemble score of a negative."""
    rank_from: int | None = None
    """Least rank of a negative, from 1, in the retriever that placed it best."""
    rank_to: int | None = None
    """Largest such rank; with either bound, negatives that nobody retrieved are dropped."""
    max_margin_std: float | None = None
    """Largest disagreement of the teachers."""
    negatives_per_query: int | None = None
    """At most that many negatives of a query, chosen by `strategy`; None keeps all."""
    negatives_per_system: int | None = None
    """Of each retriever, in the order of its ranks, the first so many that no earlier one gave; None keeps all."""
    strategy: Strategy = "random"
    """Which negatives fill the limit: those scored highest, any, or any with a preference for the high ones."""
    pairs: Pairing = "judged"
    """Whether a query without a positive gives none, or has its passages paired with each other."""
    collapse_duplicates: bool = False
    """Of a query's positives, and of its negatives, keep one for each normalised text."""
    ensemble: EnsembleKind = "mean"
    """Mean of raw logits, weighted mean, or mean of logits scaled by each teacher's spread."""
    weights: Mapping[str, float] | None = None
    """Teacher → weight, for `weighted`; None fits them on judged queries."""
    seed: int = 0
    """Seed of the draw and of the shuffle."""
    split: str = "train"
    """Queries of this split only."""
    relevance_level: int = 1
    """A pair of this grade or above is a positive; one unjudged or of grade 0 or below is a negative."""

    def __post_init__(self) -> None:
        for name in ("threshold", "relative_margin", "min_score", "max_score", "max_margin_std"):
            value = getattr(self, name)
            if value is not None and not np.isfinite(value):
                raise UsageError(f"{_option(name)} must be a number", found=value)
        for name in ("rank_from", "rank_to", "negatives_per_query", "negatives_per_system", "relevance_level"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{_option(name)} must be 1 or more", found=value)
        for name in ("relative_margin", "max_margin_std"):
            if (getattr(self, name) or 0) < 0:
                raise UsageError(f"{_option(name)} must not be negative", found=getattr(self, name))
        self._check_choices()
        self._check_together()

    def _check_choices(self) -> None:
        choices = (("anchor", Anchor), ("ensemble", EnsembleKind), ("strategy", Strategy), ("pairs", Pairing))
        for name, values in choices:
            if getattr(self, name) not in get_args(values):
                expected = " or ".join(get_args(values))
                raise UsageError(f"malformed {_option(name)}", expected=expected, found=repr(getattr(self, name)))
        for low, high in (("min_score", "max_score"), ("rank_from", "rank_to")):
            first, last = getattr(self, low), getattr(self, high)
            if first is not None and last is not None and first > last:
                raise UsageError(f"{_option(low)} is above {_option(high)}", found=f"{first} and {last}")

    def _check_together(self) -> None:
        if self.threshold_on not in ("mean", "all", "any") and not (
            self.threshold_on.isdecimal() and int(self.threshold_on)
        ):
            expected = "mean, all, any or a number of teachers"
            raise UsageError("malformed --threshold-on", expected=expected, found=repr(self.threshold_on))
        if self.pairs == "scored" and self.threshold is not None:
            raise UsageError("--pairs scored has no positive to measure from", todo="add --threshold none")
        if self.weights is not None and self.ensemble != "weighted":
            raise UsageError("--weight goes with --ensemble weighted", found=f"--ensemble {self.ensemble}")
        if self.weights is not None:
            values = list(self.weights.values())
            if not all(np.isfinite(value) and value >= 0 for value in values) or sum(values) <= 0:
                raise UsageError("weights must be 0 or more, one of them above 0", found=dict(self.weights))

    def least_agreeing(self, teachers: int) -> int | None:
        """Number of teachers whose margin must reach the threshold; None if the margin of the ensemble must.

        Raises:
            UsageError: it is more than `teachers`.
        """
        if self.threshold_on == "mean":
            return None
        least = {"all": teachers, "any": 1}.get(self.threshold_on) or int(self.threshold_on)
        if least > teachers:
            raise UsageError("--threshold-on asks for more teachers than there are", expected=teachers, found=least)
        return least

    def __hash__(self) -> int:
        values = {**vars(self), "weights": tuple(sorted(self.weights.items())) if self.weights else None}
        return hash(tuple(values.values()))


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
