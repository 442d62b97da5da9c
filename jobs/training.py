"""The stage `train`: a student, or a teacher, from a workspace's triples or judgements.

The directory `students/<name>` appears when training is complete. Until then checkpoints stand in
`students/.training-<name>`; a run cut short goes on from them if settings and inputs are the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.checkpoints import locate_checkpoint
from pipeline.errors import WorkspaceError
from pipeline.names import check_name
from pipeline.pairs import current_pairs
from pipeline.provenance import Recipe
from pipeline.schemas import SCHEMA_VERSION
from pipeline.tables import set_content, set_footers
from pipeline.texts import Texts
from pipeline.triples import load_triples
from pipeline.workspace import Workspace, atomic_write, replace_directory
from students.batches import BatchSource, JudgedPairs, TripleShards
from students.settings import STUDENT_FILE, TrainSettings
from teachers.checkpoint import resolve

if TYPE_CHECKING:
    from students.training import Trained

_RECIPE_FILE = "recipe.json"


@dataclass(frozen=True)
class TrainedStudent:
    """What `train_student` made or found."""

    name: str
    directory: Path
    rows: int
    """Triples or positives an epoch."""
    steps: int
    last_loss: float | None
    resumed_at: int
    unchanged: bool


def training_recipe(workspace: Workspace, settings: TrainSettings) -> Recipe:
    """What training would make from the workspace as it stands."""
    inputs = {"init": resolve(locate_checkpoint(workspace, settings.init)).weights_hash}
    for table in ("passages", "queries"):
        inputs[table] = set_content(set_footers(workspace.parts(table)))
    if settings.triples is None:
        inputs["pairs"] = current_pairs(workspace).content
    else:
        inputs[f"triples/{settings.triples}"] = set_content(load_triples(workspace, settings.triples)[1])
    return Recipe("students", settings.as_dict(), inputs)


def train_student(
    workspace: Workspace,
    name: str,
    settings: TrainSettings,
    *,
    overwrite: bool = False,
    on_step: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> TrainedStudent:
    """Train `students/<name>`, go on with it, or leave it where it is already there.

    Raises:
        WorkspaceError: inputs missing or stale, or another student stands under the name.
        ModelError: the checkpoint cannot be the start of the architecture.
    """
    check_name("student", name)
    final = workspace.path("students", name)
    with workspace.exclusive(f"train-{name}"):
        recipe = training_recipe(workspace, settings)
        source = _source(workspace, settings)
        if final.exists():
            facts = workspace.read_json("students", name, STUDENT_FILE)
            if facts.get("fingerprint") == recipe.fingerprint:
                return TrainedStudent(
                    name, final, source.rows, facts["steps"], _last(facts["losses"]), 0, unchanged=True
                )
            if not overwrite:
                raise WorkspaceError(
                    f"student {name!r} is there, trained with other settings or inputs",
                    where=final,
                    found={
                        k: facts["settings"].get(k)
                        for k, v in settings.as_dict().items()
                        if facts["settings"].get(k) != v
                    },
                    todo="choose another name, or pass --overwrite",
                )
        checkpoints = _checkpoints(workspace, name, recipe)
        queries, passages = Texts(workspace, "queries"), Texts(workspace, "passages")
        from students.training import train  # brings torch in; a plan or a status needs none

        started = TrainSettings(**{**vars(settings), "init": locate_checkpoint(workspace, settings.init)})
        trained = train(started, source, queries.take, passages.take, checkpoints / "trainer", on_step)
        _publish(workspace, name, recipe, trained)
        shutil.rmtree(checkpoints, ignore_errors=True)
    return TrainedStudent(
        name, final, source.rows, trained.steps, _last(trained.losses), trained.resumed_at, unchanged=False
    )


def _last(losses: list[Any]) -> float | None:
    return float(losses[-1][1]) if losses else None


def _source(workspace: Workspace, settings: TrainSettings) -> BatchSource:
    if settings.triples is not None:
        paths, footers = load_triples(workspace, settings.triples)
        return TripleShards(paths, [footer.rows for footer in footers], settings.seed)
    return JudgedPairs.load(
        workspace,
        current_pairs(workspace),
        settings.split,
        negatives=settings.negatives,
        random_negatives=settings.random_negatives,
        seed=settings.seed,
    )


def _checkpoints(workspace: Workspace, name: str, recipe: Recipe) -> Path:
    """The directory of this run's checkpoints; those of another recipe are removed."""
    directory = workspace.path("students", f".training-{name}")
    if directory.exists():
        stored = directory / _RECIPE_FILE
        if not stored.exists() or stored.read_text(encoding="utf-8") != recipe.fingerprint:
            shutil.rmtree(directory)
    if not directory.exists():
        with atomic_write(directory / _RECIPE_FILE) as stream:
            stream.write(recipe.fingerprint.encode())
    return directory


def _publish(workspace: Workspace, name: str, recipe: Recipe, trained: Trained) -> None:
    from teachers.loading import quiet_loading

    with workspace.staging(f"train-{name}") as staging:
        directory = staging / name
        directory.mkdir()
        with quiet_loading():
            trained.student.save(directory)
        workspace.write_json(
            {
                "schema_version": SCHEMA_VERSION,
                "fingerprint": recipe.fingerprint,
                "architecture": trained.student.name,
                "settings": dict(recipe.settings),
                "inputs": dict(recipe.inputs),
                "steps": trained.steps,
                "losses": [list(point) for point in trained.losses],
            },
            staging.name,
            name,
            STUDENT_FILE,
        )
        replace_directory(directory, workspace.path("students", name))
