"""Counts of what a build did: how many pairs, candidates and queries were dropped, why, and what the margins were.

A candidate is a positive with a negative of the same query. Every dropped pair and candidate is counted under one
reason. Counts are made for each shard and added up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

# In the order of the codes, from 1, that `candidates.sql` and `leave.sql` write; code 0 is a triple.
REASONS = {
    "same_text": "same text as a positive",
    "below_min_score": "score below the minimum",
    "above_max_score": "score above the maximum",
    "outside_ranks": "rank outside the bounds",
    "below_threshold": "margin below threshold",
    "within_relative_margin": "within the relative margin",
    "above_max_margin_std": "teachers disagree too much",
    "over_limit": "over the limit of negatives of a positive",
}
OVER_LIMIT = list(REASONS).index("over_limit") + 1
STEP = 0.25
"""Width of the steps of margin distributions, in logits of the ensemble."""


@dataclass(frozen=True)
class Funnel:
    """How many pairs, candidates and queries each filter left."""

    pairs: int = 0
    pairs_of_other_splits: int = 0
    positives: int = 0
    negatives: int = 0
    pairs_collapsed: int = 0
    """Dropped because another passage of the query has the same text."""
    pairs_below_relevance_level: int = 0
    """Judged above 0 but below the relevance level: neither positive nor negative."""
    queries: int = 0
    queries_without_positive: int = 0
    queries_without_negative: int = 0
    queries_with_candidates: int = 0
    queries_with_triples: int = 0
    positives_with_candidates: int = 0
    """Judged positives whose query has a negative; 0 in sets of versions that did not count them."""
    positives_with_triples: int = 0
    same_text: int = 0
    below_min_score: int = 0
    above_max_score: int = 0
    outside_ranks: int = 0
    below_threshold: int = 0
    within_relative_margin: int = 0
    above_max_margin_std: int = 0
    over_limit: int = 0
    triples: int = 0

    @property
    def candidates(self) -> int:
        """Positives paired with the negatives of their query."""
        return self.triples + sum(self.as_dict()[reason] for reason in REASONS)

    @property
    def queries_left_with_nothing(self) -> int:
        """Queries that had candidates and lost them all."""
        return self.queries_with_candidates - self.queries_with_triples

    @property
    def positives_left_with_nothing(self) -> int:
        """Judged positives that had candidates and lost them all, whatever happened to the others of their query."""
        return self.positives_with_candidates - self.positives_with_triples

    @property
    def has_single_positives(self) -> bool:
        """Whether no query has two positives."""
        return self.positives == self.queries - self.queries_without_positive

    def __add__(self, other: Funnel) -> Funnel:
        return Funnel(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @classmethod
    def from_dict(cls, counts: Mapping[str, int]) -> Funnel:
        """The inverse of `as_dict`; counts that this version does not know are left out."""
        return cls(**{f.name: counts[f.name] for f in fields(cls) if f.name in counts})

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)

    def lines(self) -> list[tuple[str, int, bool]]:
        """Rows of a table: label, count, and whether the count is a loss. Losses of 0 are left out."""
        losses = [(label, getattr(self, reason), True) for reason, label in REASONS.items()]
        every = [
            ("pairs", self.pairs, False),
            ("of other splits", self.pairs_of_other_splits, True),
            ("judged below the relevance level", self.pairs_below_relevance_level, True),
            ("saying the same as another of the query", self.pairs_collapsed, True),
            ("positives", self.positives, False),
            ("negatives", self.negatives, False),
            ("positive x negative of a query", self.candidates, False),
            *losses,
            ("triples", self.triples, False),
            ("positives without a triple", self.positives_left_with_nothing, True),
            ("queries", self.queries, False),
            ("without a positive", self.queries_without_positive, True),
            ("without a negative", self.queries_without_negative, True),
            ("left with nothing", self.queries_left_with_nothing, True),
            ("queries with triples", self.queries_with_triples, False),
        ]
        return [line for line in every if line[1] or not line[2]]


@dataclass(frozen=True)
class TripleStatistics:
    """Distributions of margins, and the share of each retriever and each teacher in the candidates."""

    candidate_margins: Counter[int] = field(default_factory=Counter)
    """Step (floor of margin / STEP) → candidates."""
    triple_margins: Counter[int] = field(default_factory=Counter)
    """Step → triples."""
    system_candidates: Counter[str] = field(default_factory=Counter)
    """Retriever → candidates whose negative it retrieved; a negative of several retrievers counts for each."""
    system_triples: Counter[str] = field(default_factory=Counter)
    """Retriever → triples whose negative it retrieved."""
    teacher_alone: Counter[str] = field(default_factory=Counter)
    """Teacher → candidates whose margin by this teacher alone reaches the threshold."""

    @classmethod
    def of_shard(
        cls, rows: Sequence[tuple[int, ...]], systems: Sequence[str], teachers: Sequence[str]
    ) -> TripleStatistics:
        """From the rows of `counts.sql`: reason, step, candidates, then a count for each system and each teacher."""
        statistics = cls()
        for reason, step, count, *others in rows:
            retrieved = dict(zip(systems, others[: len(systems)], strict=True))
            statistics.candidate_margins[step] += count
            statistics.system_candidates.update(retrieved)
            statistics.teacher_alone.update(dict(zip(teachers, others[len(systems) :], strict=True)))
            if reason == 0:
                statistics.triple_margins[step] += count
                statistics.system_triples.update(retrieved)
        return statistics

    def __add__(self, other: TripleStatistics) -> TripleStatistics:
        merged = TripleStatistics()
        for statistics in (self, other):
            for name, counts in vars(statistics).items():
                getattr(merged, name).update(counts)
        return merged

    def as_dict(self) -> dict[str, Any]:
        """For a footer and for JSON: distributions as [lower margin of the step, count], ascending."""
        shown: dict[str, Any] = {name: dict(sorted(getattr(self, name).items())) for name in _BY_NAME}
        for name in _BY_STEP:
            shown[name] = [[step * STEP, count] for step, count in sorted(getattr(self, name).items())]
        return shown

    @classmethod
    def from_dict(cls, shown: Mapping[str, Any]) -> TripleStatistics:
        """The inverse of `as_dict`."""
        by_step = {name: Counter({round(start / STEP): count for start, count in shown[name]}) for name in _BY_STEP}
        return cls(**by_step, **{name: Counter(shown[name]) for name in _BY_NAME})


_BY_NAME = ("system_candidates", "system_triples", "teacher_alone")
_BY_STEP = ("candidate_margins", "triple_margins")
