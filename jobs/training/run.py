"""One training run, as each of its workers does it: rows, token ids and the loop; the first worker saves the result.

In: a workspace's location and settings. Out: the student's directory under `checkpoints/result`, with what training
gave beside it. Knows neither names of students nor Ray.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.models.checkpoints import local_checkpoint, name_checkpoint
from jobs.models.stored_passages import find_stored
from jobs.models.token_stores import make_stores, open_stores
from jobs.training.shared_checkpoints import on_disk, stage_of
from jobs.training.sources import batch_source
from jobs.training.validation import reranking_measure
from pipeline.errors import ModelError
from pipeline.storage.location import AnyPath, StorePath
from pipeline.storage.published_sets import current_version, replace_directory
from pipeline.storage.workspace import Workspace
from students.settings import TrainSettings
from teachers.checkpoints.checkpoint import CONFIG
from teachers.settings import ScoringSettings

if TYPE_CHECKING:
    from students.token_rows import Tokens
    from students.training.in_batch import InBatchTeacher

TRAINER, RESULT, FACTS = "trainer", "result", "facts.json"
_START = "start"


@dataclass(frozen=True)
class Run:
    """What a worker needs to know."""

    location: str
    """Of the workspace."""
    settings: TrainSettings
    """With a start that has a directory."""
    checkpoints: AnyPath
    """Where checkpoints and the result go; all workers see it."""


def prepare(
    workspace: Workspace,
    settings: TrainSettings,
    checkpoints: AnyPath,
    on_tokens: Callable[[int, int], None] = lambda done, total: None,
) -> Run:
    """Make what all workers share: a start with a directory, and the token ids of all texts.

    Raises:
        ModelError: the start cannot be loaded, or its tokenizer gives no ids beforehand.
    """
    init = name_checkpoint(workspace, settings.init)
    if Path(init).expanduser().is_file():
        init = _start_of(workspace, Path(init).expanduser(), settings, checkpoints / _START)
    make_stores(workspace, local_checkpoint(init), on_progress=on_tokens)
    teacher = settings.in_batch_teacher
    if teacher is not None:
        teacher = name_checkpoint(workspace, teacher)
        make_stores(workspace, local_checkpoint(teacher), on_progress=on_tokens)
    return Run(workspace.location, replace(settings, init=init, in_batch_teacher=teacher), checkpoints)


def work(run: Run, on_step: Callable[[int, int, float | None], None] = lambda step, steps, loss: None) -> None:
    """Train; the first worker, or the only one, writes the result.

    Raises:
        PrepError: as `students.training.loop.train`.
    """
    from students.training.loop import train
    from students.training.stream import Workers
    from teachers.checkpoints.loading import quiet_loading

    workspace = Workspace.open(run.location)
    settings = replace(run.settings, init=local_checkpoint(run.settings.init))
    source = batch_source(workspace, settings)
    measure = reranking_measure(workspace, settings) if settings.eval_steps else None
    tokens, teacher = _tokens(workspace, settings.init), _in_batch_teacher(workspace, settings)
    with on_disk(workspace, run.checkpoints / TRAINER) as (directory, keep):
        trained = train(
            settings, source, tokens, directory, on_step=on_step, measure=measure, on_save=keep, teacher=teacher
        )
    if Workers.here().rank:
        return
    with workspace.staging(stage_of(run.checkpoints)) as staging, quiet_loading():
        (staging / RESULT).mkdir()
        trained.student.save(staging / RESULT)
        replace_directory(staging / RESULT, run.checkpoints / RESULT)
    facts = {name: value for name, value in vars(trained).items() if name != "student"}
    (run.checkpoints / FACTS).write_text(json.dumps(facts), encoding="utf-8")


def read_facts(run: Run) -> dict[str, Any]:
    """What training gave, as the first worker wrote it."""
    facts: dict[str, Any] = json.loads((run.checkpoints / FACTS).read_text(encoding="utf-8"))
    return facts


def _tokens(workspace: Workspace, init: str) -> Tokens:
    from students.token_rows import Tokens

    stores = open_stores(workspace, init)
    if stores is None:
        raise ModelError(
            "texts cannot be tokenised beforehand", where=init, expected="a fast tokenizer", found="a slow one"
        )
    return Tokens(*stores)


def _in_batch_teacher(workspace: Workspace, settings: TrainSettings) -> InBatchTeacher | None:
    """The teacher with what `encode` has stored of it in the run's arithmetic, if anything."""
    if settings.in_batch_teacher is None:
        return None
    from students.inference.scorer import SeparateScorer
    from students.training.in_batch import InBatchTeacher

    checkpoint, dtype = local_checkpoint(settings.in_batch_teacher), settings.precision
    stored = find_stored(workspace, Path(checkpoint).name, checkpoint, dtype)
    scorer = SeparateScorer.load(checkpoint, ScoringSettings(dtype=dtype))
    return InBatchTeacher(scorer, _tokens(workspace, checkpoint), stored.take if stored else None)


def _start_of(workspace: Workspace, file: Path, settings: TrainSettings, place: AnyPath) -> str:
    """A student made from a file of word vectors, as `name_checkpoint` names it."""
    import torch

    from students.architectures import architecture

    if not (current_version(place) / CONFIG).exists():
        torch.manual_seed(settings.seed)
        with workspace.staging(stage_of(place.parent)) as staging:
            (staging / _START).mkdir()
            architecture(settings.architecture).from_checkpoint(str(file), settings.student).save(staging / _START)
            replace_directory(staging / _START, place)
    return place.uri if isinstance(place, StorePath) else str(place)
