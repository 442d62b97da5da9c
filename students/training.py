"""The one training loop, for students and trained teachers alike: `transformers.Trainer` over id batches.

In: a student, a batch source and texts by id. Out: the trained student and its loss by step. The order of
rows is a function of seed and step, so a run that was cut short goes on from its last checkpoint at the right
row, reading nothing twice. Does not know where files stand.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from pipeline.errors import PrepError
from students.architectures import architecture
from students.architectures.base import Student
from students.batches import Batch, BatchSource
from students.losses import LOSSES
from students.settings import LossName, TrainSettings
from teachers.loading import quiet_loading

log = logging.getLogger(__name__)
TextsOf = Callable[[np.ndarray], Sequence[str]]
LOGGED_POINTS = 200


@dataclass(frozen=True)
class Trained:
    """What training gave."""

    student: Student
    steps: int
    losses: list[tuple[int, float]]
    """(step, mean loss since the last point)."""
    resumed_at: int
    """Step the run went on from; 0 for a fresh one."""


def train(
    settings: TrainSettings,
    source: BatchSource,
    query_texts: TextsOf,
    passage_texts: TextsOf,
    checkpoints: Path,
    on_step: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> Trained:
    """Train from `settings.init`, or go on from the last checkpoint under `checkpoints`.

    Raises:
        PrepError: the loss is not finite; the message names the step and its first query.
    """
    torch.manual_seed(settings.seed)
    student = architecture(settings.architecture).from_checkpoint(settings.init, settings.student)
    steps = settings.steps(source.rows)
    if not steps:
        return Trained(student.eval(), 0, [], 0)
    last: str | None = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None  # type: ignore[no-untyped-call]
    start = int(last.rsplit("-", 1)[1]) if last else 0
    stream = _BatchStream(student, source, settings, steps, start, query_texts, passage_texts)
    trainer = _Trainer(
        loss=settings.loss,
        head_rate=settings.head_learning_rate,
        model=student,
        args=_arguments(settings, steps, checkpoints),
        train_dataset=stream,
        callbacks=[_Progress(on_step)],
    )
    trainer.remove_callback(PrinterCallback)
    with quiet_loading():
        trainer.train(resume_from_checkpoint=last)
    losses = [(int(entry["step"]), float(entry["loss"])) for entry in trainer.state.log_history if "loss" in entry]
    return Trained(student.cpu().eval(), steps, losses, start)


def _arguments(settings: TrainSettings, steps: int, checkpoints: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=round(settings.warmup_share * steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_gradient_norm,
        bf16=settings.precision == "bfloat16",
        fp16=settings.precision == "float16",
        use_cpu=not torch.cuda.is_available(),
        seed=settings.seed,
        save_steps=settings.save_steps,
        save_total_limit=1,
        logging_steps=max(1, steps // LOGGED_POINTS),
        logging_nan_inf_filter=False,  # would print 0 for a loss that is not a number
        ignore_data_skip=True,  # the stream starts at the right row itself
        remove_unused_columns=False,
        average_tokens_across_devices=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        report_to="none",
    )


class _BatchStream(IterableDataset[dict[str, Tensor]]):
    """Model inputs of each step from `start` on."""

    def __init__(
        self,
        student: Student,
        source: BatchSource,
        settings: TrainSettings,
        steps: int,
        start: int,
        query_texts: TextsOf,
        passage_texts: TextsOf,
    ) -> None:
        self._student, self._source, self._size = student, source, settings.batch_size
        self._steps, self._start = steps, start
        self._query_texts, self._passage_texts = query_texts, passage_texts

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        per_epoch = -(-self._source.rows // self._size)
        for step in range(self._start, self._steps):
            epoch, place = divmod(step, per_epoch)
            yield self._inputs(self._source.batch(epoch, place * self._size, self._size))

    def _inputs(self, batch: Batch) -> dict[str, Tensor]:
        features = self._student.features(self._query_texts(batch.query), self._passage_texts(batch.passages.ravel()))
        if batch.teacher is not None:
            features["teacher"] = torch.from_numpy(batch.teacher)
        return {**features, "query_ids": torch.from_numpy(np.ascontiguousarray(batch.query))}


class _Trainer(Trainer):
    """Trainer whose loader is the stream itself and whose loss is one of ours."""

    def __init__(self, *, loss: LossName, head_rate: float | None, **options: Any) -> None:
        super().__init__(**options)
        self._loss, self._head_rate = LOSSES[loss], head_rate
        self.model_accepts_loss_kwargs = False

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The stream as it is: no second split or shuffle over workers."""
        # A loader without its own generator draws from the global one, and a resumed run's dropout would differ.
        own = torch.Generator()
        return DataLoader(self.train_dataset, batch_size=None, generator=own, pin_memory=torch.cuda.is_available())  # type: ignore[arg-type]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW, with the head in groups of its own where it has its own rate."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if self._head_rate is not None:
            head = {id(weight) for weight in cast(Student, self.model).head()}
            for group in list(optimizer.param_groups):
                own = [weight for weight in group["params"] if id(weight) in head]
                if own:
                    group["params"] = [weight for weight in group["params"] if id(weight) not in head]
                    optimizer.add_param_group({**group, "params": own, "lr": self._head_rate})
        return optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Loss of one batch."""
        teacher, query_ids = inputs.pop("teacher", None), inputs.pop("query_ids")
        scores = model(**inputs)  # (B, K)
        loss = self._loss(scores, teacher)
        if not torch.isfinite(loss):
            raise PrepError(
                "the loss is not a finite number",
                where=f"step {self.state.global_step + 1}, first query id {int(query_ids[0])}",
                found=float(loss.detach()),
                todo="lower --learning-rate, or use --precision float32",
            )
        return (loss, scores) if return_outputs else loss


class _Progress(TrainerCallback):
    def __init__(self, on_step: Callable[[int, int, float], None]) -> None:
        self._on_step, self._loss = on_step, float("nan")

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._loss = (kwargs.get("logs") or {}).get("loss", self._loss)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._on_step(state.global_step, state.max_steps, self._loss)
