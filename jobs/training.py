"""The stage `train`: a student, or a teacher, from a workspace's triples or judgements.

The directory `students/<name>` appears when training is complete. Until then checkpoints stand in
`students/.training-<name>`; a run cut short goes on from them if settings and inputs are the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.checkpoints import locate_checkpoint
from jobs.token_stores import make_stores, open_stores
from jobs.validation import reranking_measure
from pipeline.errors import ModelError, PrepError, WorkspaceError
from pipeline.fingerprint import digest_files
from pipeline.names import check_name
from pipeline.pairs import current_pairs
from pipeline.provenance import Footer, Recipe
from pipeline.schemas import SCHEMA_VERSION
from pipeline.tables import require_complete, set_content, set_footers
from pipeline.triples import load_triples
from pipeline.workspace import Workspace, atomic_write, replace_directory
from students.batches import BatchSource, JudgedPairs, ListShards, TripleShards
from students.settings import STUDENT_FILE, TrainSettings
from teachers.checkpoint import resolve

if TYPE_CHECKING:
    from students.stream import Tokens
    from students.training import Trained

_RECIPE_FILE = "recipe.json"
_TRAINER = "trainer"


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
    validations: tuple[tuple[int, float], ...] = ()
    """(step, nDCG@10) of each validation."""
    kept_step: int | None = None
    """Step whose state was kept; None where nothing was validated."""
    steps_per_second: float | None = None
    """Of this run; None where nothing was trained."""
    data_share: float | None = None
    """Share of the time that training waited for data."""


def training_recipe(workspace: Workspace, settings: TrainSettings) -> Recipe:
    """What training would make from the workspace as it stands."""
    inputs = {"init": _start_hash(locate_checkpoint(workspace, settings.init))}
    for table in ("passages", "queries"):
        inputs[table] = set_content(set_footers(workspace.parts(table)))
    if settings.lists is not None:
        inputs[f"lists/{settings.lists}"] = set_content(_load_lists(workspace, settings.lists)[1])
    elif settings.triples is not None:
        inputs[f"triples/{settings.triples}"] = set_content(load_triples(workspace, settings.triples)[1])
    else:
        inputs["pairs"] = current_pairs(workspace).content
    return Recipe("students", settings.as_dict(), inputs)


def train_student(
    workspace: Workspace,
    name: str,
    settings: TrainSettings,
    *,
    overwrite: bool = False,
    on_step: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    on_tokens: Callable[[int, int], None] = lambda done, total: None,
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
        try:
            trained = _train(workspace, settings, source, checkpoints, on_step, on_tokens)
        except PrepError:
            if not (checkpoints / _TRAINER).exists():  # nothing was trained that could be gone on with
                shutil.rmtree(checkpoints)
            raise
        _publish(workspace, name, recipe, trained)
        shutil.rmtree(checkpoints, ignore_errors=True)
    done = trained.steps - trained.resumed_at
    return TrainedStudent(
        name,
        final,
        source.rows,
        trained.steps,
        _last(trained.losses),
        trained.resumed_at,
        unchanged=False,
        validations=tuple(trained.validations),
        kept_step=trained.kept_step,
        steps_per_second=done / trained.seconds if done and trained.seconds else None,
        data_share=trained.data_seconds / trained.seconds if done and trained.seconds else None,
    )


def _train(
    workspace: Workspace,
    settings: TrainSettings,
    source: BatchSource,
    checkpoints: Path,
    on_step: Callable[[int, int, float], None],
    on_tokens: Callable[[int, int], None],
) -> Trained:
    from students.training import train  # brings torch in; a plan or a status needs none

    started, tokens = _start(workspace, settings, checkpoints, on_tokens)
    measure = reranking_measure(workspace, settings) if settings.eval_steps else None
    return train(started, source, tokens, checkpoints / _TRAINER, on_step=on_step, measure=measure)


def _start(
    workspace: Workspace, settings: TrainSettings, checkpoints: Path, on_tokens: Callable[[int, int], None]
) -> tuple[TrainSettings, Tokens]:
    """The settings with a start that has a directory, and the token ids of all texts by its tokenizer."""
    from students.stream import Tokens

    init = locate_checkpoint(workspace, settings.init)
    if Path(init).expanduser().is_file():
        init = str(_directory_of(Path(init).expanduser(), settings, checkpoints / "start"))
    make_stores(workspace, init, on_progress=on_tokens)
    stores = open_stores(workspace, init)
    if stores is None:
        raise ModelError(
            "texts cannot be tokenised beforehand", where=init, expected="a fast tokenizer", found="a slow one"
        )
    return replace(settings, init=init), Tokens(*stores)


def _directory_of(file: Path, settings: TrainSettings, directory: Path) -> Path:
    """A student's directory made from a file of word vectors."""
    import torch

    from students.architectures import architecture

    if not directory.is_dir():
        torch.manual_seed(settings.seed)
        staged = directory.with_name(f".tmp-{directory.name}")
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        architecture(settings.architecture).from_checkpoint(str(file), settings.student).save(staged)
        staged.rename(directory)
    return directory


def _start_hash(init: str) -> str:
    file = Path(init).expanduser()
    return digest_files([file]) if file.is_file() else resolve(init).weights_hash


def _load_lists(workspace: Workspace, name: str) -> tuple[list[Path], list[Footer]]:
    """A complete set of lists.

    Raises:
        WorkspaceError: no set of this name, or files are missing or mixed.
    """
    paths = workspace.parts("lists", name)
    if not paths:
        known = ", ".join(workspace.names("lists")) or "none yet"
        raise WorkspaceError(f"no lists {name!r}", where=workspace.root, expected=f"one of: {known}")
    footers = set_footers(paths)
    require_complete(f"lists {name!r}", paths, footers, "build them again")
    return paths, footers


def _last(losses: list[Any]) -> float | None:
    return float(losses[-1][1]) if losses else None


def _source(workspace: Workspace, settings: TrainSettings) -> BatchSource:
    if settings.lists is not None:
        paths, footers = _load_lists(workspace, settings.lists)
        return ListShards(paths, [footer.rows for footer in footers], settings.seed, settings.list_size)
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
                "validations": [list(point) for point in trained.validations],
                "kept_step": trained.kept_step,
            },
            staging.name,
            name,
            STUDENT_FILE,
        )
        replace_directory(directory, workspace.path("students", name))
