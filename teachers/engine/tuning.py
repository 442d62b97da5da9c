"""How many tokens of a batch suit a device: tried out once, from few to many.

Timings differ from one try to the next and batch shapes move the last bits of a logit, so what comes out is to be
kept and used again, not measured anew by each worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import torch

TYPICAL_TOKENS = 90
"""Of a pair of MS MARCO, special tokens included."""
NEARLY = 0.97
"""Share of the best speed that is good enough: the smallest such budget is taken, for the memory's sake."""
LONGEST_TRIAL_SECONDS = 5.0


def tune(run: Callable[[int], None], budgets: Iterable[int]) -> int:
    """The smallest of some budgets, ascending, that is nearly the fastest.

    Trials end when the memory is exceeded, one takes too long, or two in a row gain nothing.

    Args:
        run: works off a batch of that many tokens.
        budgets: tokens of a batch.

    Raises:
        torch.OutOfMemoryError: not even the smallest fits.
    """
    speeds: dict[int, float] = {}
    for budget in budgets:
        try:
            run(budget)  # kernels are chosen and memory is taken here
            begun = time.perf_counter()
            run(budget)
            seconds = time.perf_counter() - begun
        except (torch.OutOfMemoryError, MemoryError):
            if not speeds:
                raise
            break
        speeds[budget] = budget / seconds
        best = max(speeds.values())
        if seconds > LONGEST_TRIAL_SECONDS or max(list(speeds.values())[-2:]) < best:
            break
    return next(budget for budget, speed in speeds.items() if speed >= NEARLY * max(speeds.values()))
