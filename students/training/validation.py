"""Validation during training: measures the student every `eval_steps`, keeps its best state, and stops early.

The first worker measures and broadcasts the value. Measures and the best state are saved beside the checkpoints, so a
resumed run continues with them; measures of later steps than its checkpoint are taken again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from students.architectures.base import Student
from students.settings import TrainSettings
from students.training.step_inputs import Workers

Measure = Callable[[Student], float]
_MEASURES, _BEST = "validations.json", "best.pt"


class Validation(TrainerCallback):
    """Calls `measure` (higher is better) and saves the best state in `directory`."""

    def __init__(
        self, measure: Measure, student: Student, settings: TrainSettings, directory: Path, start: int, workers: Workers
    ) -> None:
        self._measure, self._student, self._settings = measure, student, settings
        self._directory, self._workers = directory, workers
        self.measures: list[tuple[int, float]] = []
        """(step, measure) of each validation."""
        if start and (directory / _MEASURES).is_file():
            known = json.loads((directory / _MEASURES).read_text(encoding="utf-8"))
            self.measures = [(step, value) for step, value in known if step <= start]

    @property
    def best(self) -> tuple[int, float] | None:
        """(step, measure) of the highest measure, the first of equals."""
        return max(self.measures, key=lambda point: point[1], default=None)

    @property
    def exhausted(self) -> bool:
        """Whether the last `patience` validations brought no gain, after at least `min_steps`."""
        if self._settings.patience is None or self.best is None or self.measures[-1][0] < self._settings.min_steps:
            return False
        return sum(step > self.best[0] for step, _ in self.measures) >= self._settings.patience

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure every `eval_steps` and at the last step."""
        assert self._settings.eval_steps is not None
        if state.global_step % self._settings.eval_steps and state.global_step < state.max_steps:
            return
        value = torch.zeros(1, dtype=torch.float64)
        if self._workers.rank == 0:
            was_training = self._student.training
            value[0] = self._measure(self._student)
            self._student.train(was_training)
        if self._workers.count > 1:
            value = value.to(args.device)
            torch.distributed.broadcast(value, 0)
        self.measures.append((state.global_step, float(value)))
        if self._workers.rank == 0:
            if self.best == self.measures[-1]:
                _write(self._directory / _BEST, lambda path: torch.save(self._student.state_dict(), path))
            content = json.dumps(self.measures)
            _write(self._directory / _MEASURES, lambda path: path.write_text(content, encoding="utf-8"))
        control.should_save = True
        control.should_training_stop = control.should_training_stop or self.exhausted

    def restore_best(self) -> int | None:
        """Load the best state into the first worker's student; returns its step."""
        if self.best is None or self._workers.rank:
            return self.best and self.best[0]
        state = torch.load(self._directory / _BEST, map_location="cpu", weights_only=True)
        self._student.load_state_dict(state)
        return self.best[0]


def _write(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".tmp-{path.name}")
    write(staged)
    staged.replace(path)
