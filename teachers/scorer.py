"""The one interface of whatever scores: pairs in, raw logits out.

A teacher is a scorer with a fingerprint; a student is a scorer that can be trained. Scoring, evaluation,
latency and search are written against this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Pairs(NamedTuple):
    """N pairs over unique texts; a text that stands in many pairs is held, and tokenised, once."""

    queries: Sequence[str]
    passages: Sequence[str]
    query: NDArray[np.int32]
    """(N,) row in `queries`."""
    passage: NDArray[np.int32]
    """(N,) row in `passages`."""


class Scorer(Protocol):
    """Whatever scores pairs."""

    @property
    def fingerprint(self) -> str:
        """Identity of the scores: equal fingerprints score equal pairs alike, up to rounding."""
        ...

    def score(self, pairs: Pairs, on_progress: Callable[[int], None] | None = None) -> NDArray[np.float32]:
        """Raw logits (N,), finite, rows in input order.

        `on_progress` is told how many more pairs are done, after each batch; the sum is N.
        """
        ...


def pairs_of(texts: Iterable[tuple[str, str]]) -> Pairs:
    """Pairs from (query, passage) texts, in their order."""
    queries: dict[str, int] = {}
    passages: dict[str, int] = {}
    rows = [
        (queries.setdefault(query, len(queries)), passages.setdefault(passage, len(passages)))
        for query, passage in texts
    ]
    index = np.array(rows, np.int32).reshape(-1, 2)
    return Pairs(list(queries), list(passages), index[:, 0], index[:, 1])
