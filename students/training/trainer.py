"""`transformers.Trainer` made to take a stream as it is, one of our losses, and checkpoints that appear whole."""

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
from students.training.stream import split_inputs

_SAVING = f"{TEMPORARY}checkpoint"


class StreamTrainer(Trainer):
    """Trainer whose loader is the stream itself and whose loss is one of ours."""

    def __init__(
        self, *, objective: Objective, rates: Iterable[tuple[float, list[nn.Parameter]]], **options: Any
    ) -> None:
        super().__init__(**options)
        self._objective, self._rates = objective, list(rates)
        self._saving: Path | None = None
        self.model_accepts_loss_kwargs = False

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The stream as it is: no second split or shuffle over workers."""
        # A loader without its own generator draws from the global one, and a resumed run's dropout would differ.
        own = torch.Generator()
        return DataLoader(self.train_dataset, batch_size=None, generator=own, pin_memory=torch.cuda.is_available())  # type: ignore[arg-type]

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """As the library does, file by file, but beside the place: a checkpoint is there whole or not at all."""
        place, name = Path(str(self.args.output_dir)), f"checkpoint-{self.state.global_step}"
        self._saving = place / _SAVING
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._saving = None
        self._wait_for_all()
        with suppress(FileNotFoundError):  # workers that share the directory: one of them is first
            sync_files(place / _SAVING / name)
            if not (place / name).is_dir():
                (place / _SAVING / name).rename(place / name)
            sync_directory(place)
        self._wait_for_all()
        for other in place.glob("checkpoint-*"):
            if other.name != name:
                shutil.rmtree(other, ignore_errors=True)

    @staticmethod
    def _wait_for_all() -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._saving) if self._saving else super()._get_output_dir(trial)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """A checkpoint's weights, as they are: safetensors has no place for weights that share their memory."""
        directory = Path(output_dir or str(self.args.output_dir))
        directory.mkdir(parents=True, exist_ok=True)
        weights = cast(nn.Module, self.model).state_dict() if state_dict is None else state_dict
        torch.save(weights, directory / WEIGHTS_NAME)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW, with parameters that have their own rate in groups of their own."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        for rate, parameters in self._rates:
            chosen = {id(weight) for weight in parameters}
            for group in list(optimizer.param_groups):
                own = [weight for weight in group["params"] if id(weight) in chosen]
                if own:
                    group["params"] = [weight for weight in group["params"] if id(weight) not in chosen]
                    optimizer.add_param_group({**group, "params": own, "lr": rate})
        return optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Loss of one batch."""
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
