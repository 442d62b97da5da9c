"""A loaded cross-encoder at work in PyTorch: token batches in, logits out.

Encoders of the BERT family run as `teachers.engine.first_token` has them; any other runs as it is, in a low precision
under autocast. A batch is started and collected apart, so that a GPU works while the next one is put together.

Shapes: B rows of a batch, T tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.tokens.pairs import TokenBatch
from teachers.checkpoints.cross_encoder import CrossEncoder
from teachers.engine.first_token import shorten

PROBE_TOKENS = 16


class Logits(NamedTuple):
    """What came of a batch."""

    values: NDArray[np.float32]
    """(B,)"""
    busy_seconds: float
    """What the device was at work on it."""


class RunningModel(Protocol):
    """Whatever gives logits for token batches."""

    takes_padding: bool
    """Whether rows of different lengths may share a batch."""
    first_token: bool
    """Whether the last layer is computed for the first token alone."""

    def start(self, batch: TokenBatch) -> Callable[[], Logits]:
        """Start a batch; the call that comes back waits for its logits."""
        ...


class TorchModel:
    """A model on a device, in a precision; implements `RunningModel`."""

    takes_padding = True

    def __init__(
        self,
        model: CrossEncoder,
        dtype: torch.dtype,
        device: torch.device,
        *,
        as_it_is: bool = False,
        compiled: bool = False,
    ) -> None:
        """Take over a float32 model on the CPU.

        Args:
            as_it_is: leave the architecture as transformers has it.
            compiled: let torch.compile fuse what lies between the products.
        """
        encoder = None if as_it_is else shorten(model.module, probe_of(model))
        self.first_token = encoder is not None
        self._module: nn.Module = model.module.to(device).eval()
        self._device, self._autocast = device, None
        if dtype != torch.float32 and encoder is not None:
            encoder.lower(dtype)
        elif dtype != torch.float32:
            self._autocast = dtype
            _keep_head_float32(self._module)
        if compiled:
            self._module.compile(dynamic=True)

    @torch.inference_mode()
    def start(self, batch: TokenBatch) -> Callable[[], Logits]:
        """Start a batch; on a GPU this returns before it is done."""
        if self._device.type == "cuda":
            return self._start_on_gpu(batch)
        begun = time.perf_counter()
        done = Logits(self._logits(batch).numpy(), time.perf_counter() - begun)
        return lambda: done

    def _start_on_gpu(self, batch: TokenBatch) -> Callable[[], Logits]:
        begun, done = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begun.record()
        logits = self._logits(batch)
        # Copied back at once, into pinned memory: a later copy would wait for the batch that comes after.
        values = torch.empty(logits.shape, pin_memory=True).copy_(logits, non_blocking=True)
        done.record()

        def collect() -> Logits:
            done.synchronize()
            return Logits(values.numpy(), begun.elapsed_time(done) / 1000)

        return collect

    def _logits(self, batch: TokenBatch) -> torch.Tensor:
        """Logits (B,) on the device, float32."""
        inputs = {name: self._to_device(values) for name, values in batch._asdict().items() if values is not None}
        lowered: AbstractContextManager[object] = nullcontext()
        if self._autocast is not None:
            lowered = torch.autocast(self._device.type, self._autocast)
        with lowered:
            logits: torch.Tensor = self._module(**inputs).logits  # (B, 1)
        return logits[:, 0].float()

    def _to_device(self, values: NDArray[np.int64]) -> torch.Tensor:
        tensor = torch.from_numpy(values)
        if self._device.type == "cuda":
            # From pinned memory the copy does not wait for the batch before it.
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)


@torch.inference_mode()
def logits_of(module: nn.Module, batch: TokenBatch) -> NDArray[np.float32]:
    """Logits (B,) of a float32 model on the CPU, as transformers has it."""
    inputs = {name: torch.from_numpy(values) for name, values in batch._asdict().items() if values is not None}
    logits: torch.Tensor = module(**inputs).logits  # (B, 1)
    return logits[:, 0].float().numpy()


def probe_of(model: CrossEncoder) -> dict[str, torch.Tensor]:
    """Inputs that any such model takes: two rows of different ids, one of them padded."""
    tokens = min(PROBE_TOKENS, model.positions or PROBE_TOKENS)
    ids = torch.arange(2 * tokens).reshape(2, tokens) % (model.vocabulary or 2 * tokens)
    mask = torch.ones_like(ids)
    mask[1, tokens // 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _keep_head_float32(module: nn.Module) -> None:
    """Run the last linear layer in float32: a bfloat16 logit near 9 would move in steps of 0.06."""
    heads = [m for m in module.modules() if isinstance(m, nn.Linear) and m.out_features == 1]
    if not heads:
        return
    head = heads[-1]
    plain = head.forward

    def forward(states: torch.Tensor) -> torch.Tensor:
        with torch.autocast(states.device.type, enabled=False):
            return plain(states.float())

    head.forward = forward  # type: ignore[method-assign, assignment]
