"""Collects the results for the page: from an experiment's result files, or from the runs of the workspace.

Without an experiment, every run with its facts file is a row. Systems evaluated on the same queries are compared with
each other or, if there are many, with the first system.
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
    ComparedPair,
    Condition,
    ResultLine,
    common_seeds,
    compare_targets,
    result_lines,
    values_by_query,
)
from jobs.ranking.evaluate import split_qrels
from jobs.ranking.run_facts import changed_inputs, read_latencies, read_run_facts
from jobs.report.page import Source
from pipeline.evaluation.metrics import Qrels, evaluate_run
from pipeline.evaluation.runs import read_run
from pipeline.evaluation.significance import compare, holm
from pipeline.fingerprint import digest_json
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace

MEASURE = "MRR@10"
MOST_COMPARED = 8
"""Up to this many systems are all compared with each other."""
MOST_CHANGES = 3
MOST_NAMED = 4


@dataclass(frozen=True)
class Change:
    """Two systems compared query by query: left minus right."""

    title: str
    left: str
    right: str
    left_values: np.ndarray
    """(Q,) values of the measure."""
    right_values: np.ndarray
    """(Q,)"""
    sample: Sample
    runs: tuple[AnyPath, AnyPath]
    """Run files of left and right for one seed. They may be missing."""
    values: tuple[np.ndarray, np.ndarray]
    """(Q,) each: the values that these run files must have."""


@dataclass(frozen=True)
class Results:
    """All results that the page shows."""

    measure: str
    lines: list[ResultLine]
    compared: list[ComparedPair]
    changes: list[Change]
    sources: list[Source]
    paths: list[list[ResultLine]]
    """Groups of lines with a latency; each group is a series of the latency plot."""
    stale: list[tuple[str, str, str]] = field(default_factory=list)
    """Runs that are left out as stale: names, the command that makes the first, and the inputs that changed."""


def experiment_results(workspace: Workspace, experiment: Experiment, results: Path, source: str) -> Results | None:
    """The results of an experiment; None if it has none yet."""
    rows = read_rows(experiment, results)
    if not rows:
        return None
    compared = compare_targets(experiment, rows)
    lines = result_lines(rows, compared)
    made = Source(source, {f"results/{experiment.name}": digest_json([vars(row) for row in rows])})
    timed = [line for line in lines if line.mode == "rerank" and line.latency_ms() is not None]
    paths = [[line for line in timed if line.system == student] for student in dict.fromkeys(t.system for t in timed)]
    changes = [_targets_change(workspace, rows, pair) for pair in compared]
    return Results(experiment.measure, lines, compared, changes[:MOST_CHANGES], [made], paths)


def workspace_results(workspace: Workspace) -> Results | None:
    """The results of the runs in the workspace; None if there are none."""
    facts: list[dict[str, Any]] = []
    changed: dict[str, list[dict[str, Any]]] = {}
    for run in read_run_facts(workspace):
        inputs = ", ".join(changed_inputs(workspace, run))
        (changed.setdefault(inputs, []) if inputs else facts).append(run)
    stale = [_left_out(inputs, group) for inputs, group in changed.items()]
    if not facts and not stale:
        return None
    latencies = {(timed["split"], timed["student"]): timed for timed in read_latencies(workspace)}
    samples = dict.fromkeys((run["split"], run["max_queries"]) for run in facts)
    qrels = {sample: split_qrels(workspace, *sample) for sample in samples}
    rows = [_row(workspace, run, qrels[run["split"], run["max_queries"]], latencies) for run in facts]
    lines: list[ResultLine] = []
    compared: list[ComparedPair] = []
    for sample in dict.fromkeys(row.sample for row in rows):
        ordered = sorted((row for row in rows if row.sample == sample), key=_order)
        pairs = _compare_all(ordered)
        compared += pairs
        significant = [pair for pair in pairs if pair.significant]
        for row in ordered:
            better = [p.right for p in significant if p.left == row.system and p.comparison.difference > 0]
            better += [p.left for p in significant if p.right == row.system and p.comparison.difference < 0]
            lines.append(ResultLine(row.system, "", row.mode, [row], better))
    sources = [Source(f"{run['command']} -w WORKSPACE", {f"runs/{run['run'].name}": _digest(run)}) for run in facts]
    paths = [[line] for line in lines if line.mode == "rerank" and line.latency_ms() is not None]
    return Results(MEASURE, lines, compared, _best_change(workspace, rows), sources, paths, stale)


def _left_out(inputs: str, runs: Sequence[dict[str, Any]]) -> tuple[str, str, str]:
    names = [one["run"].name for one in runs]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    listed = ", ".join(names[:MOST_NAMED]) + more
    return listed, f"{runs[0]['command']} -w WORKSPACE", f"changed since: {inputs}"


def run_path(workspace: Workspace, row: Row) -> AnyPath:
    """The run file of a row, unless another evaluation has overwritten it since."""
    return workspace.path("runs", f"{row.split}-{row.system}.run")


def _row(
    workspace: Workspace, facts: dict[str, Any], qrels: Qrels, latencies: dict[tuple[str, str], dict[str, Any]]
) -> Row:
    values = evaluate_run(read_run(workspace, facts["run"]), qrels, facts["relevance_level"]).values[MEASURE]
    system, kind = facts["system"], facts["kind"]
    timed = latencies.get((facts["split"], system.removesuffix(f"-{kind}"))) if kind == "rerank" else None
    # A latency measured before the student was trained again does not apply to it.
    valid = timed is not None and timed.get("inputs", {}).items() <= facts["inputs"].items()
    latency = timed["median_ms"] if timed is not None and valid else None
    measured = (system, kind, "", "", None, facts["means"], values.tolist(), facts["split"], facts["max_queries"])
    # Runs of earlier versions kept passages with their query's id, and their facts do not say so.
    identical = facts.get("ignore_identical_ids", False)
    return Row(*measured, latency, relevance_level=facts["relevance_level"], ignore_identical_ids=identical)


def _digest(facts: dict[str, Any]) -> str:
    return digest_json({name: value for name, value in facts.items() if name != "run"})


def _order(row: Row) -> tuple[bool, float]:
    """Sort key: first stages first, then by effectiveness."""
    return row.mode not in ("first stage", "run file"), row.means[MEASURE]


def _compare_all(rows: Sequence[Row]) -> list[ComparedPair]:
    """Compares each row with each earlier row or, if there are many, with the first."""
    pairs = combinations(rows, 2) if len(rows) <= MOST_COMPARED else ((rows[0], row) for row in rows[1:])
    compared = [(later, earlier, compare(np.array(later.values), np.array(earlier.values))) for earlier, later in pairs]
    adjusted = holm([comparison.randomisation for *_, comparison in compared])
    return [
        ComparedPair(
            Condition("", left.mode, left.sample), left.system, right.system, 1, len(left.values), comparison, p
        )
        for (left, right, comparison), p in zip(compared, adjusted, strict=True)
    ]


def _best_change(workspace: Workspace, rows: Sequence[Row]) -> list[Change]:
    """The best system against the first, for the queries that most systems were evaluated on."""
    if not rows:
        return []
    samples = [row.sample for row in rows]
    sample = max(dict.fromkeys(samples), key=samples.count)
    ordered = sorted((row for row in rows if row.sample == sample), key=_order)
    if len(ordered) < 2:
        return []
    first, best = ordered[0], max(ordered[1:], key=lambda row: row.means[MEASURE])
    values = np.array(best.values), np.array(first.values)
    runs = run_path(workspace, best), run_path(workspace, first)
    title = f"{best.system} against {first.system}"
    return [Change(title, best.system, first.system, *values, sample, runs, values)]


def _targets_change(workspace: Workspace, rows: Sequence[Row], pair: ComparedPair) -> Change:
    """The change between two targets of a student: values over all seeds, run files of the first seed."""
    condition, targets = pair.condition, (pair.left, pair.right)
    seeds = common_seeds(rows, condition, *targets)
    left_values, right_values = (values_by_query(rows, condition, target, seeds) for target in targets)
    first = [condition.rows(rows, target)[seeds[0]] for target in targets]
    title = f"{condition.student}, {condition.mode}: {pair.left} against {pair.right}"
    return Change(
        title,
        pair.left,
        pair.right,
        left_values,
        right_values,
        condition.sample,
        (run_path(workspace, first[0]), run_path(workspace, first[1])),
        (np.array(first[0].values), np.array(first[1].values)),
    )
