"""The device and the dtype that a model runs in, and default batch sizes in tokens."""

from __future__ import annotations

from typing import Final

import torch

from pipeline.errors import UsageError
from teachers.settings import Dtype, ScoringSettings

DTYPES: Final[dict[Dtype, torch.dtype]] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
BATCH_TOKENS: Final = {"cpu": 4096, "cuda": 65_536}
BUDGETS: Final = {"cpu": [1024 << n for n in range(5)], "cuda": [16_384 << n for n in range(7)]}
"""Batch sizes in tokens that the tuner tries."""


def choose_device(settings: ScoringSettings) -> torch.device:
    """The device of the settings, else the first GPU, else the CPU.

    Raises:
        UsageError: this machine does not have the device, or the device does not support the dtype.
    """
    on_cpu = settings.engine == "openvino" or not torch.cuda.is_available()
    name = settings.device or ("cpu" if on_cpu else "cuda")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError("no such device here", where=name, found=str(error).splitlines()[0]) from error
    if device.type != "cpu" and settings.engine == "openvino":
        raise UsageError("OpenVINO computes on a CPU here", expected="device cpu", found=name)
    if device.type == "cpu" and settings.dtype == "float16":
        raise UsageError("no float16 on a CPU", expected="float32 or bfloat16", found=settings.dtype)
    return device


def batch_tokens(settings: ScoringSettings, device: torch.device) -> int:
    """The batch size in tokens: that of the settings, else the device's default."""
    return settings.batch_tokens or BATCH_TOKENS.get(device.type, BATCH_TOKENS["cuda"])
