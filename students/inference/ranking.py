"""The best scores under one tie rule, score descending, then id ascending; `torch.topk` leaves the order of ties open.

Shapes: Q queries, n scored passages.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

Ranked = tuple[NDArray[np.float32], NDArray[np.int64]]
_INT32_MAX = 0x7FFF_FFFF


def keys_of(scores: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Integers (Q, n) whose descending order is that of float32 scores (Q, n), then of ids (n,) ascending."""
    bits = (scores + 0.0).view(torch.int32)  # adding 0 turns -0 into 0
    ordered = bits ^ ((bits >> 31) & _INT32_MAX)
    return (ordered.long() << 32) | (_INT32_MAX - ids)


def best(keys: torch.Tensor, k: int) -> torch.Tensor:
    """The `k` largest keys (Q, k) in descending order, or all if there are fewer."""
    return keys.topk(min(k, keys.shape[1]), dim=1).values


def unkey(keys: torch.Tensor) -> Ranked:
    """Scores and ids (Q, n) from keys (Q, n).

    >>> unkey(best(keys_of(torch.tensor([[1.0, 3.0, 3.0]]), torch.tensor([7, 9, 8])), 2))[1].tolist()
    [[8, 9]]
    """
    ordered = (keys >> 32).int()
    scores = (ordered ^ ((ordered >> 31) & _INT32_MAX)).view(torch.float32)
    return scores.numpy(), (_INT32_MAX - (keys & _INT32_MAX)).numpy()
