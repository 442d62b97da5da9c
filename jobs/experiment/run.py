"""`prep experiment`: runs a grid of students through the pipeline's own commands, one result row for each cell.

A row is a small JSON file in a directory of results: measures, the value of each query, seconds, the commands and the
fingerprints of what the student was trained on. A row whose commands are still those of the file stands; the rest is
run. So a grid grows over several sittings, and tables are made of whatever rows there are.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

from jobs.experiment.config import Cell, Experiment
from jobs.ranking.evaluate import split_qrels
from pipeline.evaluation.metrics import evaluate_run
from pipeline.evaluation.runs import read_run
from pipeline.storage.workspace import Workspace, atomic_write
from pipeline.triples.sets import triple_order
from students.settings import STUDENT_FILE

Run = Callable[[str], None]


class Sample(NamedTuple):
    """Which judged queries were asked, and what counts as relevant; only what has this in common is compared."""

    split: str
    max_queries: int | None
    relevance_level: int

    def told(self, queries: int) -> str:
        """As "300 of dev", for that many queries."""
        level = "" if self.relevance_level == 1 else f", grade {self.relevance_level} up"
        return f"{queries:,} of {self.split}{level}"


@dataclass(frozen=True)
class Row:
    """What one evaluation said of a cell, or of a baseline."""

    system: str
    mode: str
    student: str
    target: str
    seed: int | None
    means: dict[str, float]
    values: list[float]
    """Of the experiment's measure, for each query in the order of their ids."""
    split: str = "dev"
    max_queries: int | None = None
    """The sample of the split's judged queries; None where all were asked."""
    latency_ms: float | None = None
    """Median time of a query, where it was measured."""
    triples: str = ""
    """Fingerprint of the triples' ids in their order; "" for what was not trained on any."""
    relevance_level: int = 1
    """Least grade that counts as relevant."""

    @property
    def sample(self) -> Sample:
        """What was asked."""
        return Sample(self.split, self.max_queries, self.relevance_level)


def run_experiment(
    experiment: Experiment,
    workspace: str,
    results: Path,
    run: Run,
    *,
    only: str = "",
    minutes: float | None = None,
    stages: bool = True,
) -> tuple[int, int]:
    """Run the stages and every cell without a row; how many cells were run, and how many are still to be.

    Baselines are cells named `baseline-1`, ….

    Args:
        experiment: what to run.
        workspace: where; `-w` is added to each command.
        results: directory of the rows.
        run: runs a command, as typed.
        only: a part of the names of the cells to run.
        minutes: begin no cell after that many.
        stages: whether to run stages; without, the workspace has what they make.
    """
    begun = time.monotonic()
    waiting = [cell for cell in _cells(experiment) if only in cell.name and not cell_stands(results, cell)]
    done, prepared = 0, set()
    for cell in waiting:
        if minutes is not None and time.monotonic() - begun > 60 * minutes:
            break
        for stage in cell.stages if stages else ():
            if stage not in prepared:
                run(f"{experiment.placed(stage)} -w {shlex.quote(workspace)}")
                prepared.add(stage)
        path = results / f"{cell.name}.json"
        if cell.student:
            _write(path, _run_cell(experiment, cell, workspace, run, _left(path)))
        else:
            _write(path, _run_baseline(experiment, cell, workspace, run))
        done += 1
    return done, len(waiting) - done


def read_rows(experiment: Experiment, results: Path) -> list[Row]:
    """The rows of all cells that stand, and of the baselines."""
    paths = (results / f"{cell.name}.json" for cell in _cells(experiment) if cell_stands(results, cell))
    return [Row(**row) for path in paths for row in json.loads(path.read_text())["rows"]]


def cell_stands(results: Path, cell: Cell) -> bool:
    """Whether a cell has a row that its present commands made."""
    return _left(results / f"{cell.name}.json").get("cell") == asdict(cell)


def _left(path: Path) -> dict[str, Any]:
    """What an earlier run left of a cell; empty where there is nothing."""
    return json.loads(path.read_text()) if path.exists() else {}


def _cells(experiment: Experiment) -> list[Cell]:
    """Baselines, then the grid."""
    return [*experiment.baselines, *experiment.cells]


def _run_baseline(experiment: Experiment, cell: Cell, workspace: str, run: Run) -> dict[str, Any]:
    rows = [row for options in cell.evaluate for row in _evaluated(workspace, experiment, run, options, None)]
    return {"cell": asdict(cell), "rows": rows}


def _run_cell(
    experiment: Experiment, cell: Cell, workspace: str, run: Run, earlier: Mapping[str, Any]
) -> dict[str, Any]:
    """Train what is not trained yet, and evaluate it."""
    load = os.getloadavg()[0]
    options = f"--name {cell.name} --seed {cell.seed} --overwrite {experiment.placed(cell.train)}"
    training = _summary(run, f"train -w {shlex.quote(workspace)} {options}")
    trained = time.monotonic()
    if cell.encode is not None:
        run(f"encode -w {shlex.quote(workspace)} --student {cell.name} {experiment.placed(cell.encode)}")
    rows = [
        row
        for options in cell.evaluate
        for row in _evaluated(workspace, experiment, run, f"--student {cell.name} {options}", cell)
    ]
    facts = Workspace.open(workspace).read_json("students", cell.name, STUDENT_FILE)
    seconds = None if training["resumed_at"] else training["seconds"]
    if training["unchanged"]:  # trained by an earlier run, whose row has the time if it came to one
        seconds = earlier.get("train_seconds") if earlier.get("fingerprint") == facts["fingerprint"] else None
    return {
        "cell": asdict(cell),
        "rows": rows,
        "fingerprint": facts["fingerprint"],
        "inputs": facts["inputs"],
        "train_seconds": seconds and round(seconds, 1),
        "evaluate_seconds": round(time.monotonic() - trained, 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
    }


def _evaluated(
    workspace: str, experiment: Experiment, run: Run, options: str, cell: Cell | None
) -> list[dict[str, Any]]:
    """Run an evaluation, and make its rows of its summary and its run files."""
    ws = Workspace.open(workspace)
    summary = _summary(run, f"evaluate -w {shlex.quote(workspace)} {experiment.placed(options)}")
    qrels = split_qrels(ws, summary["split"], summary["max_queries"])
    latencies = {found["student"]: found["median_ms"] for found in summary["latency"]}
    triples = ""
    if cell is not None:
        name = ws.read_json("students", cell.name, STUDENT_FILE)["settings"]["triples"]
        triples = triple_order(ws, name) if name else ""
    rows = []
    for system in summary["systems"]:
        means = {name: value for name, value in system.items() if name not in ("system", "kind", "run")}
        run_file = read_run(ws, ws.path("runs", PurePosixPath(system["run"]).name))
        values = evaluate_run(run_file, qrels, summary["relevance_level"]).values[experiment.measure]
        row = Row(
            system["system"],
            system["kind"],
            cell.student if cell else "",
            cell.target if cell else "",
            cell.seed if cell else None,
            means,
            [round(float(value), 6) for value in values],
            summary["split"],
            summary["max_queries"],
            latencies.get(cell.name) if cell else None,
            triples,
            summary["relevance_level"],
        )
        rows.append(asdict(row))
    return rows


def _summary(run: Run, command: str) -> dict[str, Any]:
    """Run a command; its summary, in a file of its own since another cell may run the same at the same time."""
    with TemporaryDirectory() as place:
        path = Path(place, "summary.json")
        run(f"{command} --summary {shlex.quote(str(path))}")
        return cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8")))


def _write(path: Path, facts: dict[str, Any]) -> None:
    with atomic_write(path) as stream:
        stream.write((json.dumps(facts) + "\n").encode())
