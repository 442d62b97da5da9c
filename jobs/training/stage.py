"""The stage `train`: trains a student, or a teacher, on a workspace's triples, lists or judgements.

The directory `students/<name>` appears when training is complete. Until then checkpoints are in
`students/.training-<name>`; an interrupted run resumes from them if settings and inputs are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.cluster.settings import TrainCluster
from jobs.models.checkpoints import locate_checkpoint
from jobs.ranking.candidates import retrieved_for
from jobs.training.model_card import write_card
from jobs.training.run import RESULT, TRAINER, TrainingRun, prepare, read_facts, work
from jobs.training.sources import batch_source
from pipeline.errors import PrepError, WorkspaceError
from pipeline.fingerprint import digest_files
from pipeline.names import check_name
from pipeline.schemas import SCHEMA_VERSION
from pipeline.scores.pairs import current_pairs
from pipeline.storage.atomic_files import atomic_write, remove, write_json
from pipeline.storage.location import AnyPath, StorePath
from pipeline.storage.published_sets import current_version, download, replace_directory
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import content_fingerprint, read_footers
from pipeline.tables.provenance import Recipe
from pipeline.tables.staleness import stale_facts
from pipeline.triples.sets import usable_set
from students.identity import student_fingerprint
from students.settings import STUDENT_FILE, TrainSettings
from teachers.checkpoints.checkpoint import resolve

_RECIPE_FILE = "recipe.json"


@dataclass(frozen=True)
class TrainedStudent:
    """The result of `train_student`."""

    name: str
    directory: AnyPath
    rows: int
    """Rows of an epoch: triples, lists, positives or queries."""
    steps: int
    last_loss: float | None
    resumed_at: int
    """Step of the checkpoint that the run resumed from; 0 for a new run."""
    unchanged: bool
    """Whether the student was there already, so that nothing was trained."""
    validations: tuple[tuple[int, float], ...] = ()
    """(step, nDCG@10) of each validation."""
    kept_step: int | None = None
    """Step of the state that was kept; None without validation."""
    steps_per_second: float | None = None
    """Training speed of this call; None if nothing was trained."""
    data_share: float | None = None
    """Fraction of the training time spent waiting for batches."""


def training_recipe(workspace: Workspace, settings: TrainSettings) -> Recipe:
    """The recipe of the student that training would make from the workspace now.

    Raises:
        WorkspaceError: a set is missing or incomplete.
        StaleError: a set is stale.
    """
    inputs = {"init": _start_hash(locate_checkpoint(workspace, settings.init))}
    if settings.in_batch_teacher is not None:
        inputs["in_batch_teacher"] = student_fingerprint(locate_checkpoint(workspace, settings.in_batch_teacher), "")
    for table in ("passages", "queries"):
        inputs[table] = content_fingerprint(read_footers(workspace.parts(table)))
    dataset, name = ("triples", settings.triples) if settings.lists is None else ("lists", settings.lists)
    if name is not None:
        inputs[f"{dataset}/{name}"] = content_fingerprint(usable_set(workspace, dataset, name)[1])
    else:
        inputs["pairs"] = current_pairs(workspace).content
    if settings.eval_steps is not None:
        lists = retrieved_for(workspace, settings.eval_candidates, settings.eval_split)
        inputs[f"retrieved/{lists.system} of {settings.eval_split}"] = lists.content_of(settings.eval_split)
        inputs["qrels"] = content_fingerprint(read_footers(workspace.parts("qrels")))
    return Recipe("students", settings.as_dict(), inputs)


def changed_since_training(workspace: Workspace, facts: Mapping[str, Any]) -> list[str]:
    """What a student was trained on that is not there any more as it was, by dataset; it stays usable all the same."""
    lenient = Workspace(workspace.root, stale_ok=True, warn=False)
    try:
        now = training_recipe(lenient, TrainSettings.from_dict(facts["settings"])).inputs
    except PrepError as error:
        return [error.reason]
    changed = [name for name in {**facts["inputs"], **now} if facts["inputs"].get(name) != now.get(name)]
    return [*changed, *lenient.accepted]


def is_training_of(facts: Mapping[str, Any], settings: TrainSettings, recipe: Recipe) -> bool:
    """Whether a student's facts record these settings and inputs.

    Not compared by fingerprint: an option that a later version adds must not make every older student stale.
    """
    return TrainSettings.from_dict(facts["settings"]) == settings and facts["inputs"] == recipe.inputs


def train_student(
    workspace: Workspace,
    name: str,
    settings: TrainSettings,
    *,
    overwrite: bool = False,
    workers: TrainCluster | None = None,
    on_step: Callable[[int, int, float | None], None] = lambda step, steps, loss: None,
    on_tokens: Callable[[int, int], None] = lambda done, total: None,
) -> TrainedStudent:
    """Train `students/<name>`, resume its training, or leave it unchanged if it is there; on Ray if `workers` is given.

    Raises:
        WorkspaceError: inputs are missing, or a student of this name has other settings or inputs.
        StaleError: inputs are stale.
        ModelError: the architecture cannot start from the checkpoint `settings.init`.
    """
    check_name("student", name)
    final = workspace.path("students", name)
    with workspace.exclusive(f"train-{name}"):
        recipe = training_recipe(workspace, settings)
        rows = batch_source(workspace, settings).rows
        if name in workspace.names("students"):
            facts = workspace.read_json("students", name, STUDENT_FILE)
            if is_training_of(facts, settings, recipe):
                remove(workspace.path("students", f".training-{name}"))  # of a run killed after it published
                return TrainedStudent(name, final, rows, facts["steps"], _last(facts["losses"]), 0, unchanged=True)
            if not overwrite:
                raise WorkspaceError(
                    f"student {name!r} exists, trained with other settings or inputs",
                    where=final,
                    found={
                        k: facts["settings"].get(k)
                        for k, v in settings.as_dict().items()
                        if facts["settings"].get(k) != v
                    },
                    todo="choose another name, or pass --overwrite",
                )
        checkpoints = _checkpoints(workspace, name, recipe)
        try:
            run = prepare(workspace, settings, checkpoints, on_tokens, here=workers is None)
            if workers is None:
                work(run, on_step)
            else:
                from jobs.cluster.train import work_on_cluster

                work_on_cluster(work, run, checkpoints / "ray", workers)
        except PrepError:
            if not (checkpoints / TRAINER).exists():  # there is no checkpoint to resume from
                remove(checkpoints)
            raise
        trained = read_facts(run)
        _publish(workspace, name, recipe, run, trained)
        remove(checkpoints)
    done, seconds = trained["steps"] - trained["resumed_at"], trained["seconds"]
    return TrainedStudent(
        name,
        final,
        rows,
        trained["steps"],
        _last(trained["losses"]),
        trained["resumed_at"],
        unchanged=False,
        validations=tuple((step, value) for step, value in trained["validations"]),
        kept_step=trained["kept_step"],
        steps_per_second=done / seconds if done and seconds else None,
        data_share=trained["data_seconds"] / seconds if done and seconds else None,
    )


def _start_hash(init: str) -> str:
    file = Path(init).expanduser()
    return digest_files([file]) if file.is_file() else resolve(init).weights_hash


def _last(losses: list[Any]) -> float | None:
    return float(losses[-1][1]) if losses else None


def _checkpoints(workspace: Workspace, name: str, recipe: Recipe) -> AnyPath:
    """The directory of this run's checkpoints; removes those of another recipe."""
    directory = workspace.path("students", f".training-{name}")
    if directory.exists():
        stored = directory / _RECIPE_FILE
        if not stored.exists() or stored.read_text(encoding="utf-8") != recipe.fingerprint:
            remove(directory)
    if not directory.exists():
        with atomic_write(directory / _RECIPE_FILE) as stream:
            stream.write(recipe.fingerprint.encode())
    return directory


def _publish(workspace: Workspace, name: str, recipe: Recipe, run: TrainingRun, trained: Mapping[str, Any]) -> None:
    """Move the result to `students/<name>`, with its student file and its model card.

    A run that is killed here leaves the result among its checkpoints, or published.
    """
    with workspace.staging(f"train-{name}") as staging:
        result = run.checkpoints / RESULT
        if isinstance(result, StorePath):
            download(current_version(result), staging / name)
        staged = staging / name if isinstance(result, StorePath) else result
        facts = {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": recipe.fingerprint,
            "architecture": run.settings.architecture,
            "settings": dict(recipe.settings),
            "inputs": dict(recipe.inputs),
            **{key: trained[key] for key in ("steps", "losses", "validations", "kept_step")},
            **stale_facts(workspace),
        }
        write_json(staged / STUDENT_FILE, facts)
        write_card(staged, name, facts)
        replace_directory(staged, workspace.path("students", name))
