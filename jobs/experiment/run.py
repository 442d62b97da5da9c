"""`prep experiment`: trains and evaluates a grid of students with the commands of `prep`, one result file per cell.

A result file is a small JSON file: the measures, the value for each query, the seconds, the commands, and the
fingerprints of the training data. A cell runs only if its file is missing or was made by other commands than the
experiment has now. A grid can therefore grow over several runs, and the tables show all results that exist.
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
    """The judged queries of an evaluation, and how they are measured. Only equal samples are compared."""

    split: str
    max_queries: int | None
    relevance_level: int
    """Lowest grade that counts as relevant."""
    ignore_identical_ids: bool = False
    """Whether passages with their query's id were left out of the lists."""

    def describe(self, queries: int) -> str:
        """Describes the sample.

        >>> Sample("dev", 300, 1).describe(300)
        '300 of dev'
        """
        level = "" if self.relevance_level == 1 else f", grade {self.relevance_level} up"
        identical = ", without identical ids" if self.ignore_identical_ids else ""
        return f"{queries:,} of {self.split}{level}{identical}"


@dataclass(frozen=True)
class Row:
    """The result of one evaluation of a cell or a baseline."""

    system: str
    mode: str
    student: str
    target: str
    seed: int | None
    means: dict[str, float]
    values: list[float]
    """The value of the experiment's measure for each query, ordered by query id."""
    split: str = "dev"
    max_queries: int | None = None
    """Size of the sample of the split's judged queries; None for all of them."""
    latency_ms: float | None = None
    """Median time per query; None if it was not measured."""
    triples: str = ""
    """Fingerprint of the ids of the training triples, in order; "" without triples."""
    relevance_level: int = 1
    """Lowest grade that counts as relevant."""
    ignore_identical_ids: bool = False
    """Whether passages with their query's id were left out of the lists."""

    @property
    def sample(self) -> Sample:
        """The queries that the row was measured on, and how."""
        return Sample(self.split, self.max_queries, self.relevance_level, self.ignore_identical_ids)


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
    """Runs every cell that has no up-to-date result, and the stages it needs before it.

    Baselines are cells named `baseline-1`, ….

    Args:
        experiment: the grid, its stages and its baselines.
        workspace: path or URI of the workspace; `-w` is added to each command.
        results: directory of the result files.
        run: runs a command, given as a command line without `prep`.
        only: runs only the cells whose names contain this text.
        minutes: starts no cell after this many minutes.
        stages: whether to run the stages; if not, the workspace must contain what they make.

    Returns:
        The number of cells that were run, and of those that are still to be run.
    """
    started = time.monotonic()
    waiting = [cell for cell in _cells(experiment) if only in cell.name and not is_up_to_date(results, cell)]
    done, prepared = 0, set()
    for cell in waiting:
        if minutes is not None and time.monotonic() - started > 60 * minutes:
            break
        for stage in cell.stages if stages else ():
            if stage not in prepared:
                run(f"{experiment.placed(stage)} -w {shlex.quote(workspace)}")
                prepared.add(stage)
        path = results / f"{cell.name}.json"
        if cell.student:
            _write(path, _run_cell(experiment, cell, workspace, run, _earlier_result(path)))
        else:
            _write(path, _run_baseline(experiment, cell, workspace, run))
        done += 1
    return done, len(waiting) - done


def read_rows(experiment: Experiment, results: Path) -> list[Row]:
    """The rows of all baselines and cells that are up to date."""
    paths = (results / f"{cell.name}.json" for cell in _cells(experiment) if is_up_to_date(results, cell))
    return [Row(**row) for path in paths for row in json.loads(path.read_text())["rows"]]


def is_up_to_date(results: Path, cell: Cell) -> bool:
    """Whether the result of a cell was made by the commands that the experiment has now."""
    return _earlier_result(results / f"{cell.name}.json").get("cell") == asdict(cell)


def _earlier_result(path: Path) -> dict[str, Any]:
    """The result file that an earlier run wrote; empty if there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def _cells(experiment: Experiment) -> list[Cell]:
    """The baselines, then the grid."""
    return [*experiment.baselines, *experiment.cells]


def _run_baseline(experiment: Experiment, cell: Cell, workspace: str, run: Run) -> dict[str, Any]:
    rows = [row for options in cell.evaluate for row in _evaluated(workspace, experiment, run, options, None)]
    return {"cell": asdict(cell), "rows": rows}


def _run_cell(
    experiment: Experiment, cell: Cell, workspace: str, run: Run, earlier: Mapping[str, Any]
) -> dict[str, Any]:
    """Trains the student of a cell, unless an earlier run has, and evaluates it."""
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
    if training["unchanged"]:  # An earlier run trained it; its result file has the time, if it got that far.
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
    """Runs an evaluation, and makes its rows from its summary and its run files."""
    ws = Workspace.open(workspace)
    summary = _summary(run, f"evaluate -w {shlex.quote(workspace)} {experiment.placed(options)}")
    qrels = split_qrels(ws, summary["split"], summary["max_queries"])
    latencies = {timed["student"]: timed["median_ms"] for timed in summary["latency"]}
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
            summary["ignore_identical_ids"],
        )
        rows.append(asdict(row))
    return rows


def _summary(run: Run, command: str) -> dict[str, Any]:
    """Runs a command and returns its summary, from a temporary file: other processes may run the same command."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "summary.json")
        run(f"{command} --summary {shlex.quote(str(path))}")
        return cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8")))


def _write(path: Path, facts: dict[str, Any]) -> None:
    with atomic_write(path) as stream:
        stream.write((json.dumps(facts) + "\n").encode())
