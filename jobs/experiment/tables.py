"""Compares the targets of an experiment with paired tests, and writes its tables.

Two targets are compared for each student, mode and sample of queries. The test is paired by query, on each query's mean
over the seeds that both targets have. The p-values are adjusted with Holm's method over all comparisons of the
experiment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import NamedTuple

import numpy as np

from jobs.experiment.config import Experiment
from jobs.experiment.run import Row, Sample
from pipeline.evaluation.metrics import measures
from pipeline.evaluation.significance import Comparison, compare, holm

ALPHA = 0.01
"""A difference is called significant if its adjusted p-value is below this level."""


class Condition(NamedTuple):
    """What two compared results have in common: the student, the mode and the sample of queries."""

    student: str
    mode: str
    sample: Sample

    def rows(self, rows: Sequence[Row], target: str) -> dict[int, Row]:
        """The rows of a target under this condition, by seed."""
        return {
            row.seed: row
            for row in rows
            if row.seed is not None and (row.student, row.mode, row.sample, row.target) == (*self, target)
        }


@dataclass(frozen=True)
class ComparedPair:
    """Two targets of a student, or two systems without a student, compared query by query: left minus right."""

    condition: Condition
    left: str
    right: str
    seeds: int
    queries: int
    comparison: Comparison
    adjusted_p: float
    """p-value of the randomisation test, adjusted with Holm's method over all comparisons of the experiment."""

    @property
    def significant(self) -> bool:
        """Whether the difference is significant."""
        return self.adjusted_p < ALPHA


@dataclass(frozen=True)
class ResultLine:
    """The rows of a system, or of a student's target, in one mode: one row per seed."""

    system: str
    target: str
    mode: str
    rows: list[Row]
    better_than: list[str]
    """The targets, or systems, that this line is significantly better than."""

    @property
    def sample(self) -> Sample:
        """The queries and the grade that the line was measured with."""
        return self.rows[0].sample

    @property
    def queries_described(self) -> str:
        """The number of queries and their split, as text."""
        return self.sample.describe(len(self.rows[0].values))

    def mean(self, measure: str) -> float:
        """Mean of a measure over the seeds."""
        return float(np.mean([row.means[measure] for row in self.rows]))

    def spread(self, measure: str) -> float | None:
        """Sample standard deviation of a measure over the seeds; None for a single seed."""
        values = [row.means[measure] for row in self.rows]
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    def latency_ms(self) -> float | None:
        """Median over the seeds of the median time per query, in milliseconds; None if it was not measured."""
        known = [row.latency_ms for row in self.rows if row.latency_ms is not None]
        return float(np.median(known)) if known else None


def values_by_query(rows: Sequence[Row], condition: Condition, target: str, seeds: Sequence[int]) -> np.ndarray:
    """Values (Q,) of a target for each query, averaged over the seeds."""
    by_seed = condition.rows(rows, target)
    return np.asarray(np.mean([by_seed[seed].values for seed in seeds], axis=0))


def common_seeds(rows: Sequence[Row], condition: Condition, left: str, right: str) -> list[int]:
    """The seeds that both targets have."""
    return sorted(condition.rows(rows, left).keys() & condition.rows(rows, right).keys())


def compare_targets(experiment: Experiment, rows: Sequence[Row]) -> list[ComparedPair]:
    """Compares every pair of targets that the experiment lists and the rows allow."""
    compared: list[tuple[Condition, str, str, int, int, Comparison]] = []
    for condition in dict.fromkeys(
        Condition(row.student, row.mode, row.sample) for row in rows if row.seed is not None
    ):
        for left, right in experiment.comparisons:
            seeds = common_seeds(rows, condition, left, right)
            if seeds:
                lefts, rights = (values_by_query(rows, condition, target, seeds) for target in (left, right))
                compared.append((condition, left, right, len(seeds), len(lefts), compare(lefts, rights)))
    adjusted = holm([comparison.randomisation for *_, comparison in compared])
    return [ComparedPair(*entry, p) for entry, p in zip(compared, adjusted, strict=True)]


def result_lines(rows: Sequence[Row], compared: Sequence[ComparedPair]) -> list[ResultLine]:
    """The lines of the results table, ordered by system, mode and sample, then as the rows are."""
    groups: dict[tuple[Condition, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((Condition(row.student or row.system, row.mode, row.sample), row.target), []).append(row)
    systems, modes = (list(dict.fromkeys(condition[part] for condition, _ in groups)) for part in range(2))
    samples = list(dict.fromkeys(condition.sample for condition, _ in groups))
    ordered = sorted(groups, key=lambda k: (systems.index(k[0][0]), modes.index(k[0][1]), samples.index(k[0][2])))
    return [
        ResultLine(
            condition.student,
            target,
            condition.mode,
            # Two baselines may evaluate the same system.
            list({row.seed: row for row in groups[condition, target]}.values()),
            [
                pair.right if better else pair.left
                for pair in compared
                for better in (pair.comparison.difference > 0,)
                if (pair.condition, pair.left if better else pair.right) == (condition, target) and pair.significant
            ],
        )
        for condition, target in ordered
    ]


def markdown(experiment: Experiment, rows: Sequence[Row], compared: Sequence[ComparedPair]) -> str:
    """The results (mean ± standard deviation over seeds) and the comparisons, as Markdown tables."""
    names = [name for name in measures() if rows and name in rows[0].means]
    lines = [f"# {experiment.name}", ""]
    lines.append(f"| system | target | mode | queries | seeds | {' | '.join(names)} | better than | ms per query |")
    lines.append("|---|---|---|---|---|" + "---|" * len(names) + "---|---|")
    for line in result_lines(rows, compared):
        cells = []
        for name in names:
            spread = line.spread(name)
            cells.append(f"{line.mean(name):.3f}" + ("" if spread is None else f" ± {spread:.3f}"))
        latency = line.latency_ms()
        cells += [", ".join(line.better_than), "" if latency is None else f"{latency:.1f}"]
        cells = [line.system, line.target, line.mode, line.queries_described, str(len(line.rows)), *cells]
        lines.append(f"| {' | '.join(cells)} |")
    if compared:
        lines += ["", *_comparisons(experiment, compared)]
    return "\n".join([*lines, "", _fairness(rows)]) + "\n"


def _comparisons(experiment: Experiment, compared: Sequence[ComparedPair]) -> list[str]:
    lines = [
        f"{experiment.measure}, paired over queries; p adjusted by Holm for {len(compared)} comparisons, significant "
        f"below {ALPHA}:",
        "",
        "| student | mode | queries | comparison | seeds | difference | wins / losses | p, t-test | randomisation "
        "| adjusted |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in compared:
        f = row.comparison
        lines.append(
            f"| {row.condition.student} | {row.condition.mode} | {row.condition.sample.describe(row.queries)} "
            f"| {row.left} - {row.right} | {row.seeds} | {f.difference:+.3f} "
            f"| {f.wins} / {f.losses} | {_p(f.t_test)} | {_p(f.randomisation)} | {_p(row.adjusted_p)} |"
        )
    return lines


def _p(value: float) -> str:
    return "undefined" if isnan(value) else f"{value:.2g}"


def _fairness(rows: Sequence[Row]) -> str:
    """Says which targets were trained on the same triples in the same order."""
    by_order: dict[str, list[str]] = {}
    for row in rows:
        if row.triples and row.target not in by_order.setdefault(row.triples, []):
            by_order[row.triples].append(row.target)
    groups = "; ".join(f"{', '.join(targets)} ({order[:12]})" for order, targets in by_order.items())
    return f"Identical triples in identical order, by the fingerprint of their ids: {groups}." if groups else ""
