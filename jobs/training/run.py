"""One training run, as each worker executes it: batch source, token ids and training loop.

In: a workspace's location and settings. Out, written by the first worker: the student's directory
`checkpoints/result`, and the facts of its training beside it. Knows no names of students and no Ray.
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
from jobs.training.shared_checkpoints import local_checkpoints, stage_of
from jobs.training.sources import batch_source
from jobs.training.validation import reranking_measure
from pipeline.errors import ModelError
from pipeline.storage.location import AnyPath, StorePath
from pipeline.storage.published_sets import current_version, replace_directory
from pipeline.storage.workspace import Workspace
from students.settings import TrainSettings
from teachers.checkpoints.checkpoint import CONFIG, resolve
from teachers.settings import ScoringSettings

if TYPE_CHECKING:
    from students.token_rows import Tokens
    from students.training.in_batch import InBatchTeacher

TRAINER, RESULT, FACTS = "trainer", "result", "facts.json"
_START = "start"


@dataclass(frozen=True)
class TrainingRun:
    """Everything that a worker needs; it can be sent to other processes."""

    location: str
    """Path or URI of the workspace."""
    settings: TrainSettings
    """With an `init` that is a checkpoint directory or a Hub name."""
    checkpoints: AnyPath
    """Directory of checkpoints and result, which all workers can read."""
    stale_ok: bool = False
    """Whether the run goes on with stale sets."""


def prepare(
    workspace: Workspace,
    settings: TrainSettings,
    checkpoints: AnyPath,
    on_tokens: Callable[[int, int], None] = lambda done, total: None,
    *,
    here: bool = True,
) -> TrainingRun:
    """Make what all workers share: the checkpoint to start from, and the token ids of all texts.

    Args:
        workspace: has the texts.
        settings: as the user gave them.
        checkpoints: directory of the run.
        on_tokens: receives the texts tokenised so far and the size of the table.
        here: whether this process trains; then what would stop it is checked before any text is tokenised.

    Raises:
        ModelError: that checkpoint cannot be loaded, its tokenizer cannot tokenise texts on their own, or a maximum
            length exceeds its positions.
        UsageError: this machine does not compute in the precision.
    """
    init = name_checkpoint(workspace, settings.init)
    if Path(init).expanduser().is_file():
        init = _start_of(workspace, Path(init).expanduser(), settings, checkpoints / _START)
    elif here:
        _check_start(replace(settings, init=local_checkpoint(init)))
    make_stores(workspace, local_checkpoint(init), on_progress=on_tokens)
    teacher = settings.in_batch_teacher
    if teacher is not None:
        teacher = name_checkpoint(workspace, teacher)
        checkpoint = resolve(local_checkpoint(teacher))
        make_stores(workspace, checkpoint, prompts=checkpoint.definition.prompts, on_progress=on_tokens)
    settings = replace(settings, init=init, in_batch_teacher=teacher)
    return TrainingRun(workspace.location, settings, checkpoints, workspace.stale_ok)


def work(run: TrainingRun, on_step: Callable[[int, int, float | None], None] = lambda step, steps, loss: None) -> None:
    """Train; the first worker writes the result.

    Raises:
        PrepError: see `students.training.loop.train`.
    """
    from students.training.loop import train
    from students.training.step_inputs import Workers
    from teachers.checkpoints.loading import quiet_loading

    workspace = Workspace.open(run.location, stale_ok=run.stale_ok)
    settings = replace(run.settings, init=local_checkpoint(run.settings.init))
    source = batch_source(workspace, settings)
    measure = reranking_measure(workspace, settings) if settings.eval_steps else None
    tokens, teacher = _tokens(workspace, settings.init), _in_batch_teacher(workspace, settings)
    with local_checkpoints(workspace, run.checkpoints / TRAINER) as (directory, on_save):
        trained = train(
            settings, source, tokens, directory, on_step=on_step, measure=measure, on_save=on_save, teacher=teacher
        )
    if Workers.here().rank:
        return
    with workspace.staging(stage_of(run.checkpoints)) as staging, quiet_loading():
        (staging / RESULT).mkdir()
        trained.student.save(staging / RESULT)
        replace_directory(staging / RESULT, run.checkpoints / RESULT)
    facts = {name: value for name, value in vars(trained).items() if name != "student"}
    (run.checkpoints / FACTS).write_text(json.dumps(facts), encoding="utf-8")


def _check_start(settings: TrainSettings) -> None:
    from students.architectures import architecture
    from students.training.loop import check_start

    check_start(architecture(settings.architecture).from_checkpoint(settings.init, settings.student), settings)


def read_facts(run: TrainingRun) -> dict[str, Any]:
    """The fields of `students.training.loop.Trained` that the first worker wrote, without the student."""
    facts: dict[str, Any] = json.loads((run.checkpoints / FACTS).read_text(encoding="utf-8"))
    return facts


def _tokens(workspace: Workspace, init: str, prompts: tuple[str, str] = ("", "")) -> Tokens:
    from students.token_rows import Tokens

    stores = open_stores(workspace, init, prompts)
    if stores is None:
        raise ModelError(
            "texts cannot be tokenised in advance", where=init, expected="a fast tokenizer", found="a slow one"
        )
    return Tokens(*stores)


def _in_batch_teacher(workspace: Workspace, settings: TrainSettings) -> InBatchTeacher | None:
    """The in-batch teacher, with the passages that `encode` has stored for it in the run's precision, if it has."""
    if settings.in_batch_teacher is None:
        return None
    from students.inference.scorer import SeparateScorer
    from students.training.in_batch import InBatchTeacher

    checkpoint, dtype = local_checkpoint(settings.in_batch_teacher), settings.precision
    stored = find_stored(workspace, Path(checkpoint).name, checkpoint, dtype)
    scorer = SeparateScorer.load(checkpoint, ScoringSettings(dtype=dtype))
    tokens = _tokens(workspace, checkpoint, scorer.student.prompts)
    return InBatchTeacher(scorer, tokens, stored.take if stored else None)


def _start_of(workspace: Workspace, file: Path, settings: TrainSettings, place: AnyPath) -> str:
    """Make a student from a file of word vectors; returns its path or URI."""
    import torch

    from students.architectures import architecture

    if not (current_version(place) / CONFIG).exists():
        torch.manual_seed(settings.seed)
        with workspace.staging(stage_of(place.parent)) as staging:
            (staging / _START).mkdir()
            architecture(settings.architecture).from_checkpoint(str(file), settings.student).save(staging / _START)
            replace_directory(staging / _START, place)
    return place.uri if isinstance(place, StorePath) else str(place)
