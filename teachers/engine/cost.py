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
from torch import nn

from pipeline.errors import ModelError

_KEYS = {
    "width": ("hidden_size", "dim"),
    "inner": ("intermediate_size", "hidden_dim"),
    "layers": ("num_hidden_layers", "n_layers"),
}


def flop_of(
    config: Mapping[str, Any], lengths: NDArray[np.integer], *, first_token: bool, weights: int | None = None
) -> float:
    """Operations that pairs of `lengths` (N,) tokens take in all.

    Args:
        config: of a transformer encoder, as in its config.json.
        lengths: tokens of each pair.
        first_token: the last layer is computed for the first token alone.
        weights: as `weights_of`; where the configuration names no sizes, each is a product with each token.

    Raises:
        ModelError: the configuration names no sizes, and there are no weights.
    """
    sizes = [next((config[key] for key in keys if isinstance(config.get(key), int)), None) for keys in _KEYS.values()]
    if None in sizes:
        if weights is None:
            expected = ", ".join("|".join(keys) for keys in _KEYS.values())
            raise ModelError("a configuration without the sizes of an encoder", expected=expected)
        return 2.0 * weights * float(np.sum(lengths))
    width, inner, layers = (float(size) for size in sizes if size is not None)
    tokens, squares = float(np.sum(lengths)), float(np.sum(np.square(lengths, dtype=np.float64)))
    attention, feed_forward = 4 * width**2, 2 * width * inner  # products of a token with the weights
    whole = 2 * tokens * (attention + feed_forward) + 4 * width * squares
    if not first_token:
        return layers * whole
    last = 2 * tokens * 2 * width**2 + 4 * width * tokens + 2 * len(lengths) * (2 * width**2 + feed_forward)
    return (layers - 1) * whole + last


def weights_of(module: nn.Module) -> int:
    """Weights that tokens are multiplied with: matrices, but for embeddings."""
    looked_up = {id(one.weight) for one in module.modules() if isinstance(one, nn.Embedding)}
    return sum(one.numel() for one in module.parameters() if one.ndim > 1 and id(one) not in looked_up)


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
