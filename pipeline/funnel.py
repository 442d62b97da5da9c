"""Where pairs, candidates and queries went on the way to triples: every loss counted by its reason."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

import duckdb

from pipeline.database import one_row, sql


@dataclass(frozen=True)
class Funnel:
    """Counts over one shard or many; funnels add up."""

    pairs: int = 0
    pairs_of_other_splits: int = 0
    positives: int = 0
    negatives: int = 0
    pairs_below_relevance_level: int = 0
    """Judged above 0 but below the relevance level: neither positive nor negative."""
    queries: int = 0
    queries_without_positive: int = 0
    queries_without_negative: int = 0
    candidates: int = 0
    """Positives paired with the negatives of their query."""
    below_threshold: int = 0
    triples: int = 0
    queries_with_triples: int = 0

    @property
    def over_limit(self) -> int:
        """Candidates dropped because their query had its negatives already."""
        return self.candidates - self.below_threshold - self.triples

    @property
    def queries_left_with_nothing(self) -> int:
        """Queries that had candidates and lost them all."""
        return self.queries - self.queries_without_positive - self.queries_without_negative - self.queries_with_triples

    @classmethod
    def of_shard(cls, connection: duckdb.DuckDBPyConnection, threshold: float | None) -> Funnel:
        """Counts of the shard that stands in `scored`, `candidates` and `kept`."""
        return cls(*one_row(connection, sql("triples_funnel"), {"threshold": threshold}))

    def __add__(self, other: Funnel) -> Funnel:
        return Funnel(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)

    def lines(self) -> list[tuple[str, int, bool]]:
        """Rows for a table: label, count, and whether it is a loss."""
        return [
            ("pairs", self.pairs, False),
            ("of other splits", self.pairs_of_other_splits, True),
            ("judged below the relevance level", self.pairs_below_relevance_level, True),
            ("positives", self.positives, False),
            ("negatives", self.negatives, False),
            ("positive x negative of a query", self.candidates, False),
            ("margin below threshold", self.below_threshold, True),
            ("over negatives per query", self.over_limit, True),
            ("triples", self.triples, False),
            ("queries", self.queries, False),
            ("without a positive", self.queries_without_positive, True),
            ("without a negative", self.queries_without_negative, True),
            ("left with nothing", self.queries_left_with_nothing, True),
            ("queries with triples", self.queries_with_triples, False),
        ]
