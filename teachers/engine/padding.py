"""Which rows may share a batch: measured on a loaded model, because no file says it.

Some architectures mix neighbouring tokens without regard to the attention mask (FNet, ConvBERT, MobileBERT). A decoder
finds a row's last token by the padding id of its configuration, which may differ from its tokenizer's. The scores of
both move with the padding of the batch; what they give for a row alone is right.

Shapes: N rows, B rows of a batch, T tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError

log = logging.getLogger(__name__)

Together = Literal["padded", "equal lengths", "alone"]
"""Rows of any lengths share a batch, rows of equal length, or none."""
PROBES = (
    ("ice", "water"),
    ("ice", "steam"),
    ("what is ice", "ice is frozen water, and steam is water vapour"),
    (
        "how much does the energy of light cost",
        "the speed of light in a vacuum is the same for every observer, and the energy of light depends on its "
        "frequency alone, so that the cost of a lamp's light is the cost of the power that it takes from the network",
    ),
)
"""Pairs of three lengths; the first two are equally long with most tokenizers."""
SHARE = 1e-4
"""Largest movement of a score, as a share of the standard deviation of the scores …"""
ROUNDING = 1e-5
"""… plus this share of the largest score: a batch's size alone moves the last bits of float32."""


def rows_together(
    run: Callable[[NDArray[np.int64]], NDArray[np.floating]], lengths: NDArray[np.int64], name: object, *, can_pad: bool
) -> Together:
    """Whether rows give the same alone, with rows of their length, and padded to a longer row's length.

    Args:
        run: outputs (B, …) of the given rows (B,) in one batch, in float32.
        lengths: tokens (N,) of each row.
        name: of the model, for messages.
        can_pad: whether the tokenizer pads on the right at all.

    Raises:
        ModelError: a row cannot be computed, or its outputs are not finite or differ each time.
    """
    rows = np.arange(len(lengths))
    try:
        alone = np.concatenate([run(rows[i : i + 1]) for i in rows])
        again = run(rows[-1:])
    except (ValueError, IndexError, RuntimeError) as error:
        found = f"{type(error).__name__}: {error}"
        raise ModelError("cannot compute a row of tokens", where=name, found=found.splitlines()[0][:300]) from error
    if not np.isfinite(alone).all():
        raise ModelError(
            "values that are not finite", where=name, found="for a row of plain words, in float32",
            todo="fetch the checkpoint again, or name another: its weights are damaged",
        )  # fmt: skip
    allowed = SHARE * float(alone.std(axis=0).max()) + ROUNDING * float(np.abs(alone).max())

    def moved(some: NDArray[np.int64]) -> float:
        """The largest movement of the rows' outputs in one batch; infinite where they cannot share one."""
        try:
            return float(np.abs(run(some) - alone[some]).max())
        except (ValueError, IndexError, RuntimeError):
            return float("inf")

    if np.abs(again - alone[-1:]).max() > allowed:
        raise ModelError(
            "the same text gives another score each time", where=name, found="a random choice in its computation"
        )
    if can_pad and (by := moved(rows)) <= allowed:
        return "padded"
    if moved(np.repeat(rows[-1:], 2)) > allowed:
        _warn_once(f"{name}: its scores move with other rows in the batch; every row runs alone, which is slower")
        return "alone"
    if can_pad:
        _warn_once(f"{name}: padding moves its scores, by up to {by:.2g}; rows run unpadded, which may be slower")
    return "equal lengths"


@cache
def _warn_once(message: str) -> None:
    """Warn once in a process, however often the model is loaded."""
    log.warning("%s", message)
