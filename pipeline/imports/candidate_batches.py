"""Gathers the lists of one query after another into `CandidateBatch`es; and what JSON values may be ids or scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeGuard

import numpy as np
import pyarrow as pa

from pipeline.imports.intake import CandidateBatch

ROWS_PER_BATCH = 1 << 18


class CandidateBatchBuilder:
    """Collects lists. Call `full` after each query, and `rest` at the end."""

    def __init__(self, unused: Iterable[str] = ()) -> None:
        """`unused`: columns that the reader does not use; may still grow."""
        self._unused = unused
        self._clear()

    def _clear(self) -> None:
        self._lines: list[int] = []
        self._queries: list[int | str] = []
        self._lists: list[int] = []
        self._lengths: list[int] = []
        self._passages: list[int | str] = []
        self._scores: list[float] = []

    def add(
        self, line: int, query: int | str, passages: Sequence[int | str], scores: Sequence[float], list_number: int = 0
    ) -> None:
        """Add a query's list: passages (N,) with their scores (N,)."""
        self._lines.append(line)
        self._queries.append(query)
        self._lists.append(list_number)
        self._lengths.append(len(passages))
        self._passages += passages
        self._scores += scores

    def full(self) -> Iterator[CandidateBatch]:
        """Yields the batch, if it is large enough."""
        if len(self._passages) >= ROWS_PER_BATCH:
            yield from self.rest()

    def rest(self) -> Iterator[CandidateBatch]:
        """Yields the batch, if it is not empty."""
        if self._passages:
            owner = np.repeat(np.arange(len(self._lengths)), self._lengths)
            yield CandidateBatch(
                np.array(self._lines, np.int64)[owner],
                id_array(self._queries).take(pa.array(owner)),
                id_array(self._passages),
                np.array(self._scores, np.float64),
                np.array(self._lists, np.int16)[owner],
                list(self._unused),
            )
        self._clear()


def id_array(values: Sequence[int | str]) -> pa.Array:
    """Ids as int64 if all are integers of up to 64 bits, else as strings.

    >>> id_array([7, 8]).type, id_array([7, "p8"]).to_pylist()
    (DataType(int64), ['7', 'p8'])
    """
    if all(type(value) is int for value in values):
        try:
            return pa.array(values, pa.int64())
        except (OverflowError, pa.ArrowInvalid):
            pass  # too long for 64 bits
    return pa.array([str(value) for value in values], pa.string())


def is_id(value: object) -> TypeGuard[int | str]:
    """Whether a JSON value can be an id: an integer, or a string that is not empty."""
    return type(value) is int or (isinstance(value, str) and value != "")


def is_score(value: object) -> TypeGuard[int | float]:
    """Whether a JSON value is a number that fits into a float; an integer of hundreds of digits does not."""
    return type(value) is float or (type(value) is int and value.bit_length() < 1000)
