"""Where pairs, candidates and queries went on the way to triples: every loss counted by its reason."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

# In the order of the codes that `candidates.sql` and `leave.sql` give, from 1; 0 is a triple.
REASONS = {
    "same_text": "same text as a positive",
    "below_min_score": "score below the minimum",
    "above_max_score": "score above the maximum",
    "outside_ranks": "rank outside the bounds",
    "below_threshold": "margin below threshold",
    "within_relative_margin": "within the relative margin",
    "above_max_margin_std": "teachers disagree too much",
    "over_limit": "over the limit of negatives",
}
OVER_LIMIT = list(REASONS).index("over_limit") + 1


@dataclass(frozen=True)
class Funnel:
    """Counts over one shard or many; funnels add up."""

    pairs: int = 0
    pairs_of_other_splits: int = 0
    positives: int = 0
    negatives: int = 0
    pairs_collapsed: int = 0
    """Dropped because another passage of the query says the same."""
    pairs_below_relevance_level: int = 0
    """Judged above 0 but below the relevance level: neither positive nor negative."""
    queries: int = 0
    queries_without_positive: int = 0
    queries_without_negative: int = 0
    queries_with_candidates: int = 0
    queries_with_triples: int = 0
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

    def __add__(self, other: Funnel) -> Funnel:
        return Funnel(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)

    def lines(self) -> list[tuple[str, int, bool]]:
        """Rows for a table: label, count, and whether it is a loss; losses that nothing fell to are left out."""
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
            ("queries", self.queries, False),
            ("without a positive", self.queries_without_positive, True),
            ("without a negative", self.queries_without_negative, True),
            ("left with nothing", self.queries_left_with_nothing, True),
            ("queries with triples", self.queries_with_triples, False),
        ]
        return [line for line in every if line[1] or not line[2]]
