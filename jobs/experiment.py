"""`prep experiment`: runs a grid of students through the pipeline's own commands, one result row for each cell.

A row is a small JSON file in a directory of results: measures, the value of each query, seconds, the commands. A
row whose commands are still those of the file stands; the rest is run. So a grid grows over several sittings, and
tables are made of whatever rows there are.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from jobs.evaluation import split_qrels
from jobs.experiment_config import Cell, Experiment
from pipeline.metrics import evaluate_run
from pipeline.runs import read_run
from pipeline.significance import Comparison, compare, holm
from pipeline.workspace import Workspace, atomic_write

Run = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """What became of a cell, or of a baseline."""

    system: str
    mode: str
    student: str
    target: str
    seed: int | None
    means: dict[str, float]
    values: list[float]
    """Of the experiment's measure, for each query in the order of their ids."""


@dataclass(frozen=True)
class Compared:
    """Two targets for one student and mode: the mean over seeds, query by query."""

    student: str
    mode: str
    one: str
    other: str
    found: Comparison
    adjusted_p: float
    """Of the randomisation test, by Holm, over all comparisons of the experiment."""


def run_experiment(
    experiment: Experiment,
    workspace: str,
    results: Path,
    run: Run,
    *,
    only: str = "",
    minutes: float | None = None,
) -> tuple[int, int]:
    """Run the stages and every cell without a row; how many cells were run, and how many are still to be.

    Args:
        experiment: what to run.
        workspace: where; `-w` is added to each command.
        results: directory of the rows.
        run: runs a command, as typed.
        only: a part of the names of the cells to run.
        minutes: begin no cell after that many.
    """
    begun = time.monotonic()
    w = f"-w {shlex.quote(workspace)}"
    waiting = [cell for cell in experiment.cells if only in cell.name and not _stands(results, cell)]
    if waiting or not (results / "baselines.json").exists():
        for stage in experiment.stages:
            run(f"{stage} {w}")
    if experiment.baselines and not (results / "baselines.json").exists():
        run(f"evaluate {w} {experiment.baselines}")
        _write(results / "baselines.json", {"rows": _rows(workspace, experiment, None)})
    done = 0
    for cell in waiting:
        if minutes is not None and time.monotonic() - begun > 60 * minutes:
            break
        started = time.monotonic()
        run(f"train {w} --name {cell.name} --seed {cell.seed} --overwrite {cell.train}")
        trained = time.monotonic()
        run(f"evaluate {w} --student {cell.name} {cell.evaluate}")
        facts = {
            "cell": asdict(cell),
            "rows": _rows(workspace, experiment, cell),
            "train_seconds": round(trained - started, 1),
            "evaluate_seconds": round(time.monotonic() - trained, 1),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        }
        _write(results / f"{cell.name}.json", facts)
        done += 1
    return done, len(waiting) - done


def read_rows(experiment: Experiment, results: Path) -> list[Row]:
    """The rows of all cells that stand, and of the baselines."""
    paths = [results / "baselines.json", *(results / f"{c.name}.json" for c in experiment.cells if _stands(results, c))]
    return [Row(**row) for path in paths if path.exists() for row in json.loads(path.read_text())["rows"]]


def compare_targets(experiment: Experiment, rows: Sequence[Row]) -> list[Compared]:
    """Every comparison that the rows allow: for each student and mode, over the seeds that both targets have."""
    found: list[tuple[str, str, str, str, Comparison]] = []
    for student, mode in sorted({(row.student, row.mode) for row in rows if row.seed is not None}):
        mine = {(row.target, row.seed): row for row in rows if (row.student, row.mode) == (student, mode)}
        for one, other in experiment.comparisons:
            seeds = sorted({s for t, s in mine if t == one} & {s for t, s in mine if t == other}, key=str)
            if seeds:
                means = [np.mean([mine[target, seed].values for seed in seeds], axis=0) for target in (one, other)]
                found.append((student, mode, one, other, compare(*means)))
    adjusted = holm([comparison.randomisation for *_, comparison in found])
    return [Compared(*entry, p) for entry, p in zip(found, adjusted, strict=True)]


def markdown(experiment: Experiment, rows: Sequence[Row], compared: Sequence[Compared]) -> str:
    """The table of results, mean and spread over seeds, and the table of comparisons."""
    names = list(rows[0].means) if rows else []
    lines = [f"# {experiment.name}", "", f"| system | target | mode | seeds | {' | '.join(names)} |"]
    lines.append("|---|---|---|---|" + "---|" * len(names))
    for system, target, mode in dict.fromkeys((row.student or row.system, row.target, row.mode) for row in rows):
        mine = [row for row in rows if (row.student or row.system, row.target, row.mode) == (system, target, mode)]
        cells = []
        for name in names:
            values = np.array([row.means[name] for row in mine])
            cells.append(f"{values.mean():.3f}" + (f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""))
        lines.append(f"| {system} | {target} | {mode} | {len(mine)} | {' | '.join(cells)} |")
    if compared:
        lines += [
            "",
            f"{experiment.measure}, paired over queries; p adjusted by Holm for {len(compared)} comparisons:",
            "",
        ]
        lines += [
            "| student | mode | comparison | difference | wins / losses | p, t-test | p, randomisation | adjusted |"
        ]
        lines += ["|---|---|---|---|---|---|---|---|"]
        for row in compared:
            f = row.found
            lines.append(
                f"| {row.student} | {row.mode} | {row.one} - {row.other} | {f.difference:+.3f} | {f.wins} / {f.losses} "
                f"| {f.t_test:.2g} | {f.randomisation:.2g} | {row.adjusted_p:.2g} |"
            )
    return "\n".join(lines) + "\n"


def _stands(results: Path, cell: Cell) -> bool:
    path = results / f"{cell.name}.json"
    return path.exists() and json.loads(path.read_text())["cell"] == asdict(cell)


def _rows(workspace: str, experiment: Experiment, cell: Cell | None) -> list[dict[str, Any]]:
    """Of the evaluation that has just ended, from its summary and its run files."""
    ws = Workspace.open(workspace)
    summary = ws.read_json("summaries", "evaluate.json")
    qrels = split_qrels(ws, summary["split"], summary["max_queries"])
    rows = []
    for system in summary["systems"]:
        means = {name: value for name, value in system.items() if name not in ("system", "kind", "run")}
        values = evaluate_run(read_run(ws, ws.path("runs", PurePosixPath(system["run"]).name)), qrels).values[
            experiment.measure
        ]
        row = Row(
            system["system"],
            system["kind"],
            cell.student if cell else "",
            cell.target if cell else "",
            cell.seed if cell else None,
            means,
            [round(float(value), 6) for value in values],
        )
        rows.append(asdict(row))
    return rows


def _write(path: Path, facts: dict[str, Any]) -> None:
    with atomic_write(path) as stream:
        stream.write((json.dumps(facts, indent=1) + "\n").encode())
