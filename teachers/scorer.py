"""The interface of all scorers: pairs in, raw logits out.

A teacher is a scorer with a fingerprint; a student is a scorer that can be trained. Scoring, evaluation,
latency and search are written against this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Pairs(NamedTuple):
    """N pairs over unique texts: a text of many pairs is held and tokenised once."""

    queries: Sequence[str]
    passages: Sequence[str]
    query: NDArray[np.int32]
    """(N,) row in `queries`."""
    passage: NDArray[np.int32]
    """(N,) row in `passages`."""

    def prompted(self, prompts: tuple[str, str]) -> Pairs:
        """The pairs with a text put before every query and one before every passage."""
        query, passage = prompts
        queries = [query + text for text in self.queries] if query else self.queries
        passages = [passage + text for text in self.passages] if passage else self.passages
        return self._replace(queries=queries, passages=passages)


@dataclass(frozen=True)
class Work:
    """What has been done since the last report; adds up over batches and devices."""

    pairs: int = 0
    tokens: int = 0
    """Padding included."""
    flop: float = 0.0
    """Floating-point operations of the model, two for a multiplication and an addition."""
    peak_seconds: float = 0.0
    """Seconds that these operations would take at the device's peak."""
    busy_seconds: float = 0.0
    """Seconds in which the device was computing."""
    seconds: float = 0.0
    """Wall-clock seconds."""

    def __add__(self, other: Work) -> Work:
        return Work(*(one + another for one, another in zip(astuple(self), astuple(other), strict=True)))

    def __neg__(self) -> Work:
        return Work(*(-one for one in astuple(self)))


class ProgressReporter:
    """Reports finished work, and retracts it when a batch or a shard has to be run again."""

    def __init__(self, on_progress: Callable[[Work], None] | None) -> None:
        self._on_progress, self._sum, self._last = on_progress, Work(), time.perf_counter()

    def report(self, work: Work) -> None:
        """Pass on finished work. Where its `seconds` are 0, the time since the last report is filled in."""
        now = time.perf_counter()
        if not work.seconds:
            work += Work(seconds=now - self._last)
        self._last = now
        self._sum += work
        if self._on_progress is not None:
            self._on_progress(work)

    def retract(self) -> None:
        """Report the negative of everything reported so far, except for the time, which has passed all the same."""
        done, self._sum = self._sum, Work()
        if self._on_progress is not None:
            self._on_progress(-Work(done.pairs, done.tokens, done.flop, done.peak_seconds))


class Scorer(Protocol):
    """Scores pairs."""

    @property
    def fingerprint(self) -> str:
        """Identity of the scores: equal fingerprints score equal pairs alike, up to rounding."""
        ...

    def score(self, pairs: Pairs, on_progress: Callable[[Work], None] | None = None) -> NDArray[np.float32]:
        """Raw logits (N,), finite, rows in input order.

        `on_progress` receives the work of each batch; its pairs add up to N.
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
