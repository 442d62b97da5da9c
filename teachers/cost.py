"""What scoring costs: floating-point operations of a model, and how many a second a device can do.

A multiplication and an addition are two operations. Embeddings, normalisation and activation are left out: they
cost time, but no products.

Shapes: N pairs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_KEYS = {
    "width": ("hidden_size", "dim"),
    "inner": ("intermediate_size", "hidden_dim"),
    "layers": ("num_hidden_layers", "n_layers"),
}


def flop_of(config: Mapping[str, Any], lengths: NDArray[np.integer], *, first_token: bool) -> float:
    """Operations that pairs of `lengths` (N,) tokens take in all.

    Args:
        config: of a transformer encoder, as in its config.json.
        lengths: tokens of each pair.
        first_token: the last layer is computed for the first token alone.
    """
    width, inner, layers = (float(next(config[key] for key in keys if key in config)) for keys in _KEYS.values())
    tokens, squares = float(np.sum(lengths)), float(np.sum(np.square(lengths, dtype=np.float64)))
    attention, feed_forward = 4 * width**2, 2 * width * inner  # products of a token with the weights
    whole = 2 * tokens * (attention + feed_forward) + 4 * width * squares
    if not first_token:
        return layers * whole
    last = 2 * tokens * 2 * width**2 + 4 * width * tokens + 2 * len(lengths) * (2 * width**2 + feed_forward)
    return (layers - 1) * whole + last


def measure_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second that the device reaches in a large matrix product, as measured now."""
    size, repeats = (8192, 8) if device.type == "cuda" else (1024, 3)
    one = torch.randn(size, size, device=device).to(dtype)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(repeats):
            _wait(device)
            begun = time.perf_counter()
            torch.mm(one, one)
            _wait(device)
            best = min(best, time.perf_counter() - begun)
    return 2.0 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
