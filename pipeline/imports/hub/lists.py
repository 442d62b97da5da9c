"""Reads rows that hold a query with its positives and negatives, each a value or a list of values.

A value is an id, a text, or an object with an id (`docid`) and possibly a `score`.

Shapes: R rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.imports.candidate_batches import CandidateBatchBuilder, is_id, is_score
from pipeline.imports.columns import ColumnCheck, Layout
from pipeline.imports.hub.layouts import ListRows, Side
from pipeline.imports.intake import POSITIVES, CandidateBatch

_IDS = ("docid", "doc_id", "pid", "id", "_id")
_OBJECT = Layout("passages", frozenset([*_IDS]), frozenset({"title", "text"}))
_SCORED = Layout("passages with scores", frozenset([*_IDS, "score"]), frozenset({"title", "text"}))


def read_list_rows(
    batch: pa.RecordBatch, rows: ListRows, first: int, check: ColumnCheck, *, scored: bool
) -> Iterator[CandidateBatch]:
    """The candidates of a batch (R,), and its positives.

    Args:
        batch: some rows of the table.
        rows: which columns to read.
        first: number of the first row, from 1.
        check: for the keys of objects.
        scored: read the scores of positives and negatives; otherwise the negatives are one list, scored by minus the
            rank, and the positives are no candidates.

    Raises:
        InputError: a value is no id, text or object, or has no score; names its row.
    """
    inner = ColumnCheck(_SCORED if scored else _OBJECT, check.where, lenient=check.lenient, unused=check.unused)
    builder = CandidateBatchBuilder(check.unused)
    columns = {name: batch.column(name).to_pylist() for name in rows.columns}
    for number in range(batch.num_rows):
        line, query = first + number, columns[rows.query][number]
        if not is_id(query):
            raise InputError(f"row {line} has no query", where=check.where, found=repr(query)[:100])
        candidates: list[int | str] = []
        scores: list[float] = []
        for side in rows.sides:
            values = _values(columns[side.column][number])
            passages = [_passage(value, side, line, inner) for value in values]
            if scored:
                scores += _scores(columns, side, number, values, line, inner)
            if scored or not side.is_positive:
                candidates += passages
            if side.is_positive:
                builder.add(line, query, passages, [0.0] * len(passages), POSITIVES)
        builder.add(line, query, candidates, scores if scored else range(-1, -1 - len(candidates), -1))
        yield from builder.full()
    yield from builder.rest()


def _values(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _passage(value: Any, side: Side, line: int, check: ColumnCheck) -> int | str:
    if isinstance(value, dict):
        check.see([key for key, item in value.items() if item is not None], line)
        value = next((value[name] for name in _IDS if value.get(name) is not None), None)
    if not is_id(value):
        raise InputError(f"row {line} has no passage in {side.column}", where=check.where, found=repr(value)[:100])
    return value


def _scores(
    columns: dict[str, list[Any]], side: Side, number: int, values: list[Any], line: int, check: ColumnCheck
) -> list[float]:
    found = _values(columns[side.score][number]) if side.score else [_score_of(value) for value in values]
    if len(found) != len(values) or not all(is_score(score) for score in found):
        raise InputError(
            f"row {line} has not a score for each passage in {side.column}",
            where=check.where,
            expected=f"{len(values)} numbers" + (f" in {side.score}" if side.score else ", each in its passage"),
            found=repr(found)[:100],
            todo="without scores, import it with --as lists",
        )
    return [float(score) for score in found]


def _score_of(value: Any) -> Any:
    return value.get("score") if isinstance(value, dict) else None
