"""What an experiment's rows say together: comparisons of targets with paired tests, and the tables.

Targets are compared for each student, mode and sample, query by query, by the mean over the seeds that both have;
p-values are Holm's over all comparisons of the experiment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jobs.experiment.config import Experiment
from jobs.experiment.run import Row, Sample
from pipeline.evaluation.metrics import measures
from pipeline.evaluation.significance import Comparison, compare, holm

ALPHA = 0.01
"""Adjusted p-values below it are called significant."""


class Place(NamedTuple):
    """Where targets are compared."""

    student: str
    mode: str
    sample: Sample

    def rows(self, rows: Sequence[Row], target: str) -> dict[int, Row]:
        """A target's rows here, by seed."""
        return {
            row.seed: row
            for row in rows
            if row.seed is not None and (row.student, row.mode, row.sample, row.target) == (*self, target)
        }


@dataclass(frozen=True)
class Compared:
    """Two targets in one place, or two systems of no student: the mean over seeds, query by query."""

    place: Place
    one: str
    other: str
    seeds: int
    queries: int
    found: Comparison
    adjusted_p: float
    """Of the randomisation test, by Holm, over all comparisons of the experiment."""

    @property
    def significant(self) -> bool:
        """Whether the difference is."""
        return self.adjusted_p < ALPHA


@dataclass(frozen=True)
class Summed:
    """One system, or one student's target, in one mode: its rows over seeds."""

    system: str
    target: str
    mode: str
    rows: list[Row]
    better_than: list[str]
    """Targets that it is significantly better than."""

    @property
    def sample(self) -> Sample:
        """What was asked."""
        return self.rows[0].sample

    @property
    def asked(self) -> str:
        """How many queries, and of which split."""
        return self.sample.told(len(self.rows[0].values))

    def mean(self, measure: str) -> float:
        """Over seeds."""
        return float(np.mean([row.means[measure] for row in self.rows]))

    def spread(self, measure: str) -> float | None:
        """Sample standard deviation over seeds; None for one seed."""
        values = [row.means[measure] for row in self.rows]
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    def latency_ms(self) -> float | None:
        """Median over seeds of the median time of a query; None where it was not measured."""
        known = [row.latency_ms for row in self.rows if row.latency_ms is not None]
        return float(np.median(known)) if known else None


def values_by_query(rows: Sequence[Row], place: Place, target: str, seeds: Sequence[int]) -> np.ndarray:
    """Values (Q,) of a target, the mean over some seeds."""
    mine = place.rows(rows, target)
    return np.asarray(np.mean([mine[seed].values for seed in seeds], axis=0))


def common_seeds(rows: Sequence[Row], place: Place, one: str, other: str) -> list[int]:
    """Seeds that both targets have."""
    return sorted(place.rows(rows, one).keys() & place.rows(rows, other).keys())


def compare_targets(experiment: Experiment, rows: Sequence[Row]) -> list[Compared]:
    """Every comparison of the experiment that the rows allow."""
    found: list[tuple[Place, str, str, int, int, Comparison]] = []
    for place in dict.fromkeys(Place(row.student, row.mode, row.sample) for row in rows if row.seed is not None):
        for one, other in experiment.comparisons:
            seeds = common_seeds(rows, place, one, other)
            if seeds:
                ours, theirs = (values_by_query(rows, place, target, seeds) for target in (one, other))
                found.append((place, one, other, len(seeds), len(ours), compare(ours, theirs)))
    adjusted = holm([comparison.randomisation for *_, comparison in found])
    return [Compared(*entry, p) for entry, p in zip(found, adjusted, strict=True)]


def summed(rows: Sequence[Row], compared: Sequence[Compared]) -> list[Summed]:
    """The lines of the table of results: by system, by mode, by sample, then in the order of the rows."""
    groups: dict[tuple[Place, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((Place(row.student or row.system, row.mode, row.sample), row.target), []).append(row)
    systems, modes = (list(dict.fromkeys(place[part] for place, _ in groups)) for part in range(2))
    samples = list(dict.fromkeys(place.sample for place, _ in groups))
    ordered = sorted(groups, key=lambda k: (systems.index(k[0][0]), modes.index(k[0][1]), samples.index(k[0][2])))
    return [
        Summed(
            place.student,
            target,
            place.mode,
            # The same system may be a part of two baselines.
            list({row.seed: row for row in groups[place, target]}.values()),
            [
                c.other if better else c.one
                for c in compared
                for better in (c.found.difference > 0,)
                if (c.place, c.one if better else c.other) == (place, target) and c.significant
            ],
        )
        for place, target in ordered
    ]


def markdown(experiment: Experiment, rows: Sequence[Row], compared: Sequence[Compared]) -> str:
    """The table of results, mean and spread over seeds, and the table of comparisons."""
    names = [name for name in measures() if rows and name in rows[0].means]
    lines = [f"# {experiment.name}", ""]
    lines.append(f"| system | target | mode | queries | seeds | {' | '.join(names)} | better than | ms a query |")
    lines.append("|---|---|---|---|---|" + "---|" * len(names) + "---|---|")
    for line in summed(rows, compared):
        cells = []
        for name in names:
            spread = line.spread(name)
            cells.append(f"{line.mean(name):.3f}" + ("" if spread is None else f" ± {spread:.3f}"))
        latency = line.latency_ms()
        cells += [", ".join(line.better_than), "" if latency is None else f"{latency:.1f}"]
        lines.append(
            f"| {line.system} | {line.target} | {line.mode} | {line.asked} | {len(line.rows)} | {' | '.join(cells)} |"
        )
    if compared:
        lines += ["", *_comparisons(experiment, compared)]
    return "\n".join([*lines, "", _fairness(rows)]) + "\n"


def _comparisons(experiment: Experiment, compared: Sequence[Compared]) -> list[str]:
    lines = [
        f"{experiment.measure}, paired over queries; p adjusted by Holm for {len(compared)} comparisons, significant "
        f"below {ALPHA}:",
        "",
        "| student | mode | queries | comparison | seeds | difference | wins / losses | p, t-test | randomisation "
        "| adjusted |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in compared:
        f = row.found
        lines.append(
            f"| {row.place.student} | {row.place.mode} | {row.place.sample.told(row.queries)} "
            f"| {row.one} - {row.other} | {row.seeds} | {f.difference:+.3f} "
            f"| {f.wins} / {f.losses} | {f.t_test:.2g} | {f.randomisation:.2g} | {row.adjusted_p:.2g} |"
        )
    return lines


def _fairness(rows: Sequence[Row]) -> str:
    """Which targets were trained on identical triples in identical order."""
    by_order: dict[str, list[str]] = {}
    for row in rows:
        if row.triples and row.target not in by_order.setdefault(row.triples, []):
            by_order[row.triples].append(row.target)
    told = "; ".join(f"{', '.join(targets)} ({order[:12]})" for order, targets in by_order.items())
    return f"Identical triples in identical order, by the fingerprint of their ids: {told}." if told else ""
