"""The training loop of students and of teachers that are trained here: `transformers.Trainer` over token batches.

In: a batch source and the token ids of all texts. Out: the trained student and its loss by step. The order of rows is a
function of seed and step, so an interrupted run resumes from its last checkpoint at the right row, and reads no row
twice. In a process group every worker calls `train` and takes its rows. Knows no workspace: its checkpoints go into the
directory that the caller names.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from pipeline.errors import PrepError, UsageError
from students.architectures import architecture
from students.architectures.base import Student
from students.architectures.separate import SeparateStudent
from students.settings import TrainSettings
from students.token_rows import Tokens
from students.training.batches import BatchSource
from students.training.in_batch import InBatchTeacher
from students.training.objective import Objective
from students.training.step_inputs import StepInputs, Workers, micro_batches_per_step
from students.training.trainer import StudentTrainer
from students.training.validation import Measure, Validation
from teachers.checkpoints.inputs import is_moved_by_padding
from teachers.checkpoints.loading import quiet_loading

log = logging.getLogger(__name__)
LOGGED_POINTS = 200
"""The most points of the loss curve."""
_SCHEDULERS = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


@dataclass(frozen=True)
class Trained:
    """The result of training."""

    student: Student
    steps: int
    losses: list[tuple[int, float]]
    """(step, mean loss since the last point)."""
    resumed_at: int
    """Step of the checkpoint that the run resumed from; 0 for a new run."""
    validations: list[tuple[int, float]] = field(default_factory=list)
    """(step, measure)."""
    kept_step: int | None = None
    """Step of the best state, which is kept; None without validation."""
    seconds: float = 0.0
    """Wall-clock time of this call, resumed steps excluded."""
    data_seconds: float = 0.0
    """Time of it spent waiting for batches."""


def train(
    settings: TrainSettings,
    source: BatchSource,
    tokens: Tokens,
    checkpoints: Path,
    *,
    on_step: Callable[[int, int, float | None], None] = lambda step, steps, loss: None,
    measure: Measure | None = None,
    on_save: Callable[[Path], None] = lambda checkpoint: None,
    teacher: InBatchTeacher | None = None,
) -> Trained:
    """Train from `settings.init`, or resume from the last checkpoint in `checkpoints`.

    Args:
        settings: what to train, and how.
        source: rows to train on.
        tokens: token ids of all texts, from the tokenizer of `settings.init`.
        checkpoints: directory of checkpoints; workers share it, or each starts with a copy of the first worker's.
        on_step: called after each step with the step, the number of steps and the last logged loss, or None.
        on_save: called with each checkpoint's directory once it is complete.
        measure: validates the student, higher is better; needed if `settings.eval_steps` is set.
        teacher: scores whole batches; needed if `settings.in_batch_teacher` is set.

    Raises:
        PrepError: the loss is not finite, or a batch does not fit into memory; checkpoints are kept.
        ModelError: a maximum length exceeds the encoder's positions.
        UsageError: the architecture does not support the loss or has too few layers to freeze, or this machine does not
            compute in the precision.
    """
    torch.manual_seed(settings.seed)
    student = architecture(settings.architecture).from_checkpoint(settings.init, settings.student)
    check_start(student, settings)
    steps, objective = settings.steps(source.rows), Objective(settings)
    if objective.in_batch and not isinstance(student, SeparateStudent):
        raise UsageError(
            f"{settings.architecture} reads query and passage together and cannot score in-batch negatives",
            found=settings.loss,
            todo="choose a loss that compares only a query's own passages",
        )
    if settings.freeze_layers is not None:
        student.freeze(settings.freeze_layers)
    if not steps:
        return Trained(student.eval(), 0, [], 0)
    arguments = training_arguments(settings, steps, checkpoints)  # joins the process group, if there is one
    workers = Workers.here()
    arguments.gradient_accumulation_steps = micro_batches_per_step(settings, workers)
    last: str | None = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None  # type: ignore[no-untyped-call]
    start = int(last.rsplit("-", 1)[1]) if last else 0
    inputs = StepInputs(student, source, tokens, settings, workers, steps=steps, start=start, teacher=teacher)
    validation = None
    if settings.eval_steps is not None:
        assert measure is not None
        validation = Validation(measure, student, settings, checkpoints, start, workers)
    trainer = StudentTrainer(
        objective=objective,
        rates=_rates(settings, student),
        model=student,
        args=arguments,
        train_dataset=inputs,
        callbacks=[*([validation] if validation else []), _Progress(on_step, on_save)],
    )
    trainer.remove_callback(PrinterCallback)
    started = time.perf_counter()
    if not (validation and validation.exhausted):
        with quiet_loading():
            _run(trainer, settings, last)
    elif last:
        trainer.state = TrainerState.load_from_json(str(Path(last) / "trainer_state.json"))
    losses = [(int(entry["step"]), float(entry["loss"])) for entry in trainer.state.log_history if "loss" in entry]
    student = student.cpu()
    return Trained(
        student.eval(),
        trainer.state.global_step,
        losses,
        start,
        validation.measures if validation else [],
        validation.restore_best() if validation else None,
        time.perf_counter() - started,
        inputs.seconds,
    )


def check_start(student: Student, settings: TrainSettings) -> None:
    """Check what would stop or change training hours later; for `train`, and before any text is tokenised.

    Raises:
        ModelError: a maximum length exceeds the encoder's positions.
        UsageError: this machine does not compute in the precision.
    """
    student.check_lengths()
    if settings.precision == "float16" and not torch.cuda.is_available():
        raise UsageError(
            "a CPU does not train in float16", expected="a GPU, or --precision float32 or bfloat16", found="float16"
        )
    config = getattr(student.encoder, "config", None)
    if config is not None and is_moved_by_padding(config.to_dict()):
        log.warning(
            "%s: padding moves its states; it is trained on padded batches, and scores unpadded texts", settings.init
        )


def _run(trainer: StudentTrainer, settings: TrainSettings, last: str | None) -> None:
    try:
        trainer.train(resume_from_checkpoint=last)
    except torch.OutOfMemoryError as error:
        raise PrepError(
            "a batch does not fit into memory",
            where=f"step {trainer.state.global_step + 1}",
            found=f"{settings.micro_batch_size or settings.batch_size} queries at once",
            todo="pass --micro-batch-size with a smaller number; the batch stays the same, "
            "only in-batch negatives and FLOPS are then those of a micro-batch",
        ) from error


def training_arguments(settings: TrainSettings, steps: int, checkpoints: Path) -> TrainingArguments:
    """The Trainer's arguments for a run of `steps` steps."""
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=_SCHEDULERS[settings.schedule],
        warmup_steps=settings.warmup(steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_gradient_norm,
        bf16=settings.precision == "bfloat16",
        fp16=settings.precision == "float16",
        use_cpu=not torch.cuda.is_available(),
        seed=settings.seed,
        save_steps=settings.save_steps,
        logging_steps=max(1, steps // LOGGED_POINTS),
        logging_nan_inf_filter=False,  # the filter would log 0 for a loss that is not a number
        ignore_data_skip=True,  # StepInputs starts at the right row
        remove_unused_columns=False,
        average_tokens_across_devices=False,  # would double the logged loss of two workers
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        report_to="none",
    )
    # With several devices in one process the Trainer would use DataParallel, which splits a batch by rows and loses the
    # `penalties` of its replicas.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _rates(settings: TrainSettings, student: Student) -> list[tuple[float, list[nn.Parameter]]]:
    """Groups of parameters with another learning rate than the rest."""
    groups = ((settings.head_learning_rate, student.head()), (settings.embedding_learning_rate, student.embeddings()))
    return [(rate, parameters) for rate, parameters in groups if rate is not None]


class _Progress(TrainerCallback):
    """Passes steps and checkpoints on to the caller's functions."""

    def __init__(self, on_step: Callable[[int, int, float | None], None], on_save: Callable[[Path], None]) -> None:
        self._on_step, self._on_save = on_step, on_save
        self._loss: float | None = None

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._loss = (kwargs.get("logs") or {}).get("loss", self._loss)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._on_step(state.global_step, state.max_steps, self._loss)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._on_save(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")
