"""The file beside a run, `runs/<name>.json`: how the run was made and what it measured, for reports.

A student's latency is in `runs/<split>-<student>.latency.json`, because all its modes share it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.models.checkpoints import named_student
from jobs.ranking.evaluate import ensemble_system, split_qrels
from pipeline.errors import PrepError
from pipeline.fingerprint import digest_json
from pipeline.retrieval.lists import usable_retrieved
from pipeline.scores.pairs import load_pairs
from pipeline.scores.scores import load_scores
from pipeline.storage.workspace import Workspace
from pipeline.tables.staleness import stale_facts
from pipeline.triples.sets import load_ensemble
from students.settings import STUDENT_FILE

if TYPE_CHECKING:
    from jobs.ranking.evaluate import Evaluated
    from jobs.ranking.latency import Latency
    from jobs.ranking.settings import EvaluationSettings

_LATENCY = ".latency.json"


def write_run_facts(
    workspace: Workspace, settings: EvaluationSettings, rows: Sequence[Evaluated], timed: Sequence[Latency]
) -> None:
    """Write the facts of each run and each latency of an evaluation."""
    for row in rows:
        facts = {
            "system": row.system,
            "kind": row.kind,
            "split": settings.split,
            "max_queries": settings.max_queries,
            "relevance_level": settings.relevance_level,
            "candidates": settings.candidates if row.kind == "rerank" else None,
            "depth": settings.depth,
            "student": _student_of(settings, row),
            "means": row.means,
            "queries": row.queries,
            "missing_queries": row.missing_queries,
            "ignore_identical_ids": row.identical_ids is not None,
            "identical_ids": row.identical_ids,
            "command": _command(settings, row),
            "inputs": _inputs(workspace, settings, row),
            **stale_facts(workspace),
        }
        workspace.write_json(facts, "runs", f"{row.path.stem}.json")
    for found in timed:
        text = next(text for text in settings.students if text.partition("=")[0] == found.student)
        inputs = _student_input(workspace, text)
        facts = {**found._asdict(), "split": settings.split, "dtype": settings.dtype, "inputs": inputs}
        workspace.write_json(facts, "runs", f"{settings.split}-{found.student}{_LATENCY}")


def read_run_facts(workspace: Workspace) -> list[dict[str, Any]]:
    """The facts of all runs, by name, each with the path of its run file."""
    found = []
    for name in sorted(path.name for path in workspace.path("runs").glob("*.json")):
        run = workspace.path("runs", name.removesuffix(".json") + ".run")
        if not name.endswith(_LATENCY) and run.exists():
            found.append({**workspace.read_json("runs", name), "run": run})
    return found


def read_latencies(workspace: Workspace) -> list[dict[str, Any]]:
    """All latencies, by name."""
    names = sorted(path.name for path in workspace.path("runs").glob(f"*{_LATENCY}"))
    return [workspace.read_json("runs", name) for name in names]


def _command(settings: EvaluationSettings, row: Evaluated) -> str:
    words = ["prep evaluate", f"--split {settings.split}"]
    if settings.max_queries:
        words.append(f"--max-queries {settings.max_queries}")
    words.append(f"--depth {settings.depth}")
    if settings.relevance_level != 1:
        words.append(f"--relevance-level {settings.relevance_level}")
    if settings.ignore_identical_ids is not None:
        words.append(f"--{'' if settings.ignore_identical_ids else 'no-'}ignore-identical-ids")
    if row.system == "ensemble":
        words += [f"--teacher {name}" for name in settings.teachers]
    elif (triples := _triples_of(settings, row)) is not None:
        words.append(f"--ensemble {triples}")
    elif row.system in settings.teachers:
        words.append(f"--teacher {row.system}")
    elif row.kind == "first stage":
        words.append(f"--run {row.system}")
    elif row.kind == "run file":
        words += [f"--run {shlex.quote(text)}" for text in settings.runs if Path(text).stem == row.system]
    else:
        words.append(f"--student {_student_of(settings, row)} --mode {row.kind} --dtype {settings.dtype}")
    if settings.candidates != "bm25" and row.kind == "rerank":
        words.append(f"--candidates {settings.candidates}")
    return " ".join(words)


def _student_of(settings: EvaluationSettings, row: Evaluated) -> str | None:
    """The student of a row as it was named: NAME, or NAME=CHECKPOINT."""
    names = {f"{text.partition('=')[0]}-{row.kind}": text for text in settings.students}
    return names.get(row.system) if row.kind in ("rerank", "retrieve") else None


def _triples_of(settings: EvaluationSettings, row: Evaluated) -> str | None:
    """The triples whose ensemble a row is of."""
    return next((name for name in settings.ensembles if row.system == ensemble_system(name)), None)


def changed_inputs(workspace: Workspace, facts: Mapping[str, Any]) -> list[str]:
    """What a run and its measures were made of that is not there any more as it was."""
    return [name for name, known in facts["inputs"].items() if _present(workspace, facts, name) != known]


def _inputs(workspace: Workspace, settings: EvaluationSettings, row: Evaluated) -> dict[str, str]:
    """Content fingerprints of what the run and its measures were made of."""
    inputs = {"qrels": _judgements(workspace, settings.split, settings.max_queries)}
    triples = _triples_of(settings, row)
    if triples is not None:
        return inputs | {f"scores/{one.teacher}": one.content for one in load_ensemble(workspace, triples)[1]}
    if row.system in settings.teachers or row.system == "ensemble":
        pairs = load_pairs(workspace)
        named = settings.teachers if row.system == "ensemble" else [row.system]
        return inputs | {f"scores/{name}": load_scores(workspace, pairs, name).content for name in named}
    if row.kind in ("rerank", "first stage"):
        system = settings.candidates if row.kind == "rerank" else row.system
        inputs[f"retrieved/{system}"] = usable_retrieved(workspace, system, settings.split).content_of(settings.split)
    student = _student_of(settings, row)
    return inputs if student is None else inputs | _student_input(workspace, student)


def _present(workspace: Workspace, facts: Mapping[str, Any], name: str) -> str | None:
    """The present fingerprint of an input; None if the input is gone."""
    kind, _, of = name.partition("/")
    try:
        if kind == "qrels":
            return _judgements(workspace, facts["split"], facts["max_queries"])
        if kind == "scores":
            return load_scores(workspace, load_pairs(workspace), of).content
        if kind == "retrieved":
            return usable_retrieved(workspace, of, facts["split"]).content_of(facts["split"])
        directory = Path(named_student(workspace, facts.get("student") or of)[1])
        return str(Workspace(directory).read_json(STUDENT_FILE)["fingerprint"])
    except (PrepError, OSError):
        return None


def _judgements(workspace: Workspace, split: str, max_queries: int | None) -> str:
    """The fingerprint of the judgements of the evaluated queries alone: other splits may grow."""
    return digest_json([column.tolist() for column in split_qrels(workspace, split, max_queries)])


def _student_input(workspace: Workspace, text: str) -> dict[str, str]:
    """The fingerprint of a student, named as in `evaluate`; empty for a checkpoint that was not trained here."""
    name, checkpoint = named_student(workspace, text)
    if not (Path(checkpoint) / STUDENT_FILE).is_file():
        return {}
    return {f"students/{name}": Workspace(Path(checkpoint)).read_json(STUDENT_FILE)["fingerprint"]}
