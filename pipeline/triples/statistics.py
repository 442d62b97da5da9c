"""What the candidates look like: margins, what each retriever brought, what each teacher alone would keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

STEP = 0.25
"""Width of a step of the distributions, in logits of the ensemble."""


@dataclass(frozen=True)
class TripleStatistics:
    """Counts over one shard or many; they add up."""

    candidate_margins: Counter[int] = field(default_factory=Counter)
    """Step (floor of margin / STEP) → candidates."""
    triple_margins: Counter[int] = field(default_factory=Counter)
    system_candidates: Counter[str] = field(default_factory=Counter)
    system_triples: Counter[str] = field(default_factory=Counter)
    """Retriever → triples whose negative it brought; one that several brought counts for each."""
    teacher_alone: Counter[str] = field(default_factory=Counter)
    """Teacher → candidates whose margin reaches the threshold by it alone."""

    @classmethod
    def of_shard(
        cls, rows: Sequence[tuple[int, ...]], systems: Sequence[str], teachers: Sequence[str]
    ) -> TripleStatistics:
        """From the rows of `counts.sql`."""
        found = cls()
        for reason, step, count, *others in rows:
            brought = dict(zip(systems, others[: len(systems)], strict=True))
            found.candidate_margins[step] += count
            found.system_candidates.update(brought)
            found.teacher_alone.update(dict(zip(teachers, others[len(systems) :], strict=True)))
            if reason == 0:
                found.triple_margins[step] += count
                found.system_triples.update(brought)
        return found

    def __add__(self, other: TripleStatistics) -> TripleStatistics:
        merged = TripleStatistics()
        for one in (self, other):
            for name, counts in vars(one).items():
                getattr(merged, name).update(counts)
        return merged

    def as_dict(self) -> dict[str, Any]:
        """For a footer and for JSON: distributions as [from, count], ascending."""
        shown: dict[str, Any] = {name: dict(sorted(getattr(self, name).items())) for name in _BY_NAME}
        for name in _BY_STEP:
            shown[name] = [[step * STEP, count] for step, count in sorted(getattr(self, name).items())]
        return shown

    @classmethod
    def from_dict(cls, shown: Mapping[str, Any]) -> TripleStatistics:
        """What `as_dict` said."""
        by_step = {name: Counter({round(start / STEP): count for start, count in shown[name]}) for name in _BY_STEP}
        return cls(**by_step, **{name: Counter(shown[name]) for name in _BY_NAME})


_BY_NAME = ("system_candidates", "system_triples", "teacher_alone")
_BY_STEP = ("candidate_margins", "triple_margins")
