"""`transformers.Trainer` with three changes: the loader yields the dataset's micro-batches unchanged, the loss is an
`Objective`, and a checkpoint appears only when it is complete.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.utils import WEIGHTS_NAME

from pipeline.errors import PrepError
from pipeline.storage.atomic_files import TEMPORARY, sync_directory, sync_files
from students.architectures.base import Student
from students.training.objective import Objective
from students.training.step_inputs import split_inputs

_SAVING = f"{TEMPORARY}checkpoint"


class StudentTrainer(Trainer):
    """Trains a student; `rates` are learning rates of groups of parameters, all others have that of the arguments."""

    def __init__(
        self, *, objective: Objective, rates: Iterable[tuple[float, list[nn.Parameter]]], **options: Any
    ) -> None:
        super().__init__(**options)
        self._objective, self._rates = objective, list(rates)
        self._saving: Path | None = None
        self.model_accepts_loss_kwargs = False

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The dataset itself: it is split among workers already, and must not be split or shuffled again."""
        # A loader without a generator draws from the global one, and the dropout of a resumed run would differ.
        draws, pinned = torch.Generator(), torch.cuda.is_available()
        return DataLoader(self.train_dataset, batch_size=None, generator=draws, pin_memory=pinned)  # type: ignore[arg-type]

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save as the library does, but in a temporary directory that is renamed when it is complete."""
        directory, name = Path(str(self.args.output_dir)), f"checkpoint-{self.state.global_step}"
        self._saving = directory / _SAVING
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._saving = None
        self._wait_for_all()
        with suppress(FileNotFoundError):  # another worker that shares the directory has renamed it
            sync_files(directory / _SAVING / name)
            if not (directory / name).is_dir():
                (directory / _SAVING / name).rename(directory / name)
            sync_directory(directory)
        self._wait_for_all()
        for other in directory.glob("checkpoint-*"):
            if other.name != name:
                shutil.rmtree(other, ignore_errors=True)

    @staticmethod
    def _wait_for_all() -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._saving) if self._saving else super()._get_output_dir(trial)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save weights with torch: safetensors refuses weights that share memory."""
        directory = Path(output_dir or str(self.args.output_dir))
        directory.mkdir(parents=True, exist_ok=True)
        weights = cast(nn.Module, self.model).state_dict() if state_dict is None else state_dict
        torch.save(weights, directory / WEIGHTS_NAME)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW, with a group for the parameters of each of `rates`."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        for rate, parameters in self._rates:
            chosen = {id(weight) for weight in parameters}
            for group in list(optimizer.param_groups):
                moved = [weight for weight in group["params"] if id(weight) in chosen]
                if moved:
                    group["params"] = [weight for weight in group["params"] if id(weight) not in chosen]
                    optimizer.add_param_group({**group, "params": moved, "lr": rate})
        return optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Loss of a micro-batch, a scalar.

        Raises:
            PrepError: it is not finite.
        """
        features, targets = split_inputs(inputs)
        scores = model(in_batch=self._objective.in_batch, **features)
        loss = self._objective(scores, targets, cast(Student, self.model).penalties)
        if not torch.isfinite(loss):
            raise PrepError(
                "the loss is not a finite number",
                where=f"step {self.state.global_step + 1}, first query id {int(targets.query_ids[0])}",
                found=float(loss.detach()),
                todo="lower --learning-rate, or use --precision float32",
            )
        return (loss, scores) if return_outputs else loss
