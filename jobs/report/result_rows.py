"""What was measured, for the sections of results: from an experiment's rows, or from the runs of the workspace.

In a workspace without an experiment every run with its facts is a row; systems asked about the same queries are
compared with each other, or with the first one where there are many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from jobs.experiment.config import Experiment
from jobs.experiment.run import Row, Sample, read_rows
from jobs.experiment.tables import (
    Compared,
    Place,
    Summed,
    common_seeds,
    compare_targets,
    summed,
    values_by_query,
)
from jobs.ranking.evaluate import split_qrels
from jobs.ranking.run_facts import changed_inputs, read_latencies, read_run_facts
from jobs.report.page import Source
from pipeline.evaluation.metrics import evaluate_run
from pipeline.evaluation.runs import read_run
from pipeline.evaluation.significance import compare, holm
from pipeline.fingerprint import digest_json
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace

MEASURE = "MRR@10"
MOST_COMPARED = 8
"""Systems that are all compared with each other."""
MOST_CHANGES = 3
MOST_NAMED = 4


@dataclass(frozen=True)
class Change:
    """Two systems, query by query."""

    title: str
    one: str
    other: str
    ones: np.ndarray
    """(Q,) values of the first."""
    others: np.ndarray
    """(Q,)"""
    sample: Sample
    runs: tuple[AnyPath, AnyPath]
    """Of the same comparison, for one seed; they may not be there."""
    values: tuple[np.ndarray, np.ndarray]
    """(Q,) each: what the runs' values must be."""


@dataclass(frozen=True)
class Results:
    """All that was measured."""

    measure: str
    lines: list[Summed]
    compared: list[Compared]
    changes: list[Change]
    sources: list[Source]
    paths: list[list[Summed]]
    """Lines with a latency that belong together, in the order in which they are joined."""
    stale: list[tuple[str, str, str]] = field(default_factory=list)
    """Runs that are left out: their names, the command that makes the first, and what was changed since."""


def experiment_results(workspace: Workspace, experiment: Experiment, results: Path, source: str) -> Results | None:
    """From an experiment's rows; None where there are none."""
    rows = read_rows(experiment, results)
    if not rows:
        return None
    compared = compare_targets(experiment, rows)
    lines = summed(rows, compared)
    made = Source(source, {f"results/{experiment.name}": digest_json([vars(row) for row in rows])})
    timed = [line for line in lines if line.mode == "rerank" and line.latency_ms() is not None]
    paths = [[line for line in timed if line.system == student] for student in dict.fromkeys(t.system for t in timed)]
    changes = [_targets_change(workspace, rows, one) for one in compared]
    return Results(experiment.measure, lines, compared, changes[:MOST_CHANGES], [made], paths)


def workspace_results(workspace: Workspace) -> Results | None:
    """From the runs of the workspace; None where there are none."""
    facts: list[dict[str, Any]] = []
    changed: dict[str, list[dict[str, Any]]] = {}
    for one in read_run_facts(workspace):
        why = ", ".join(changed_inputs(workspace, one))
        (changed.setdefault(why, []) if why else facts).append(one)
    stale = [_left_out(why, group) for why, group in changed.items()]
    if not facts and not stale:
        return None
    latencies = {(found["split"], found["student"]): found for found in read_latencies(workspace)}
    rows = [_row(workspace, one, latencies) for one in facts]
    lines: list[Summed] = []
    compared: list[Compared] = []
    for sample in dict.fromkeys(row.sample for row in rows):
        mine = sorted((row for row in rows if row.sample == sample), key=_order)
        found = _compare_all(mine)
        compared += found
        for row in mine:
            better = [c.other for c in found if c.one == row.system and c.significant and c.found.difference > 0]
            better += [c.one for c in found if c.other == row.system and c.significant and c.found.difference < 0]
            lines.append(Summed(row.system, "", row.mode, [row], better))
    sources = [Source(f"{one['command']} -w WORKSPACE", {f"runs/{one['run'].name}": _digest(one)}) for one in facts]
    timed = [[line] for line in lines if line.mode == "rerank" and line.latency_ms() is not None]
    return Results(MEASURE, lines, compared, _best_change(workspace, rows), sources, timed, stale)


def _left_out(why: str, runs: Sequence[dict[str, Any]]) -> tuple[str, str, str]:
    names = [one["run"].name for one in runs]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    told = ", ".join(names[:MOST_NAMED]) + more
    return told, f"{runs[0]['command']} -w WORKSPACE", f"changed since: {why}"


def run_path(workspace: Workspace, row: Row) -> AnyPath:
    """Where a row's run stands, as long as nothing else was evaluated under its name."""
    return workspace.path("runs", f"{row.split}-{row.system}.run")


def _row(workspace: Workspace, facts: dict[str, Any], latencies: dict[tuple[str, str], dict[str, Any]]) -> Row:
    qrels = split_qrels(workspace, facts["split"], facts["max_queries"])
    values = evaluate_run(read_run(workspace, facts["run"]), qrels, facts["relevance_level"]).values[MEASURE]
    system, kind = facts["system"], facts["kind"]
    timed = latencies.get((facts["split"], system.removesuffix(f"-{kind}"))) if kind == "rerank" else None
    # A student trained anew is not as fast as the one of its name that was timed.
    same = timed is not None and timed.get("inputs", {}).items() <= facts["inputs"].items()
    latency = timed["median_ms"] if timed is not None and same else None
    known = (system, kind, "", "", None, facts["means"], values.tolist(), facts["split"], facts["max_queries"])
    return Row(*known, latency, relevance_level=facts["relevance_level"])


def _digest(facts: dict[str, Any]) -> str:
    return digest_json({name: value for name, value in facts.items() if name != "run"})


def _order(row: Row) -> tuple[bool, float]:
    """First stages come first, then by effectiveness."""
    return row.mode not in ("first stage", "run file"), row.means[MEASURE]


def _compare_all(rows: Sequence[Row]) -> list[Compared]:
    """Each later row with each earlier one, or with the first."""
    pairs = combinations(rows, 2) if len(rows) <= MOST_COMPARED else ((rows[0], row) for row in rows[1:])
    found = [(b, a, compare(np.array(b.values), np.array(a.values))) for a, b in pairs]
    adjusted = holm([comparison.randomisation for *_, comparison in found])
    return [
        Compared(Place("", one.mode, one.sample), one.system, other.system, 1, len(one.values), comparison, p)
        for (one, other, comparison), p in zip(found, adjusted, strict=True)
    ]


def _best_change(workspace: Workspace, rows: Sequence[Row]) -> list[Change]:
    """The best system against the first one of those asked about the same queries, for the largest such set."""
    if not rows:
        return []
    samples = [row.sample for row in rows]
    sample = max(dict.fromkeys(samples), key=samples.count)
    mine = sorted((row for row in rows if row.sample == sample), key=_order)
    if len(mine) < 2:
        return []
    first, best = mine[0], max(mine[1:], key=lambda row: row.means[MEASURE])
    values = np.array(best.values), np.array(first.values)
    runs = run_path(workspace, best), run_path(workspace, first)
    title = f"{best.system} against {first.system}"
    return [Change(title, best.system, first.system, *values, sample, runs, values)]


def _targets_change(workspace: Workspace, rows: Sequence[Row], found: Compared) -> Change:
    """Two targets of a student: values over all seeds, runs of the first seed."""
    place = found.place
    seeds = common_seeds(rows, place, found.one, found.other)
    ones, others = (values_by_query(rows, place, target, seeds) for target in (found.one, found.other))
    first = [place.rows(rows, target)[seeds[0]] for target in (found.one, found.other)]
    title = f"{place.student}, {place.mode}: {found.one} against {found.other}"
    return Change(
        title,
        found.one,
        found.other,
        ones,
        others,
        place.sample,
        (run_path(workspace, first[0]), run_path(workspace, first[1])),
        (np.array(first[0].values), np.array(first[1].values)),
    )
