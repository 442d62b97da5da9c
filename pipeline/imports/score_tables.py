"""Reads scores from Parquet tables: rows of a pair, or of a query with lists of passages and scores.

Columns are recognised by the names that published data sets use, in any order; other columns are ignored.

Shapes: R rows of a table, N pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.imports.intake import CandidateBatch

QUERY = ("query_id", "qid", "query")
PASSAGE = ("passage_id", "passage_ids", "corpus_id", "document_id", "document_ids", "doc_ids", "doc_id", "docno", "pid")
SCORE = ("score", "scores", "label", "labels")
_EXPECTED = f"columns {'|'.join(QUERY)}, {'|'.join(PASSAGE)} and {'|'.join(SCORE)}, the last two lists or neither"
_ROWS_PER_BATCH = 16_384


class ScoreColumns(NamedTuple):
    """Names of the columns with queries, passages and scores."""

    query: str
    passage: str
    score: str


def read_score_tables(path: Path) -> Iterator[CandidateBatch]:
    """Read the pairs of a Parquet file, or of all files below a directory in the order of their names.

    `line` counts rows.

    Raises:
        InputError: a file cannot be read, or lacks the columns.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise InputError("no Parquet file in it", where=path)
    first = 1
    for file_path in files:
        try:
            with pq.ParquetFile(file_path) as file:
                columns = score_columns(file.schema_arrow, file_path)
                for batch in file.iter_batches(_ROWS_PER_BATCH, columns=list(columns)):
                    yield pairs_of(batch, columns, first, file_path)
                    first += batch.num_rows
        except FileNotFoundError:
            raise InputError("no such file", where=file_path) from None
        except (OSError, pa.ArrowException) as error:
            raise InputError("unreadable Parquet file", where=file_path, found=str(error)[:300]) from error


def score_columns(schema: pa.Schema, where: object) -> ScoreColumns:
    """Find the columns with queries, passages and scores.

    Raises:
        InputError: a column is missing, or of the wrong type.
    """
    names = [next((name for name in known if name in schema.names), None) for known in (QUERY, PASSAGE, SCORE)]
    if None in names:
        todo = None
        if "negative_id" in schema.names:
            todo = "margins of two passages do not give the scores of each: import the table of scores"
        raise InputError("not a table of scores", where=where, expected=_EXPECTED, found=schema.names, todo=todo)
    query, passage, score = (schema.field(name).type for name in names)
    lists = [_is_list(data_type) for data_type in (passage, score)]
    inner = [column.value_type if _is_list(column) else column for column in (query, passage, score)]
    is_number = pa.types.is_floating(inner[2]) or pa.types.is_integer(inner[2])
    if lists[0] != lists[1] or _is_list(query) or not all(map(_is_id, inner[:2])) or not is_number:
        types = ", ".join(f"{name} {schema.field(name).type}" for name in names)
        raise InputError("columns of the wrong types", where=where, expected=_EXPECTED, found=types)
    return ScoreColumns(*(str(name) for name in names))


def pairs_of(batch: pa.RecordBatch, columns: ScoreColumns, first: int, where: object) -> CandidateBatch:
    """Flatten a batch (R,) of a table into pairs (N,).

    Args:
        batch: some rows of the table.
        columns: which columns to read.
        first: number of the first row, from 1.
        where: file or table, for messages.

    Raises:
        InputError: a null, or a row with more passages than scores, or fewer.
    """
    query, passage, score = (batch.column(name) for name in columns)
    lines = np.arange(first, first + batch.num_rows)
    if _is_list(passage.type):
        lengths = [np.diff(array.offsets.to_numpy()) for array in (passage, score)]
        _refuse(lengths[0] != lengths[1], "has more passages than scores, or fewer", lines, where)
        rows = np.repeat(np.arange(batch.num_rows), lengths[0])
        _refuse(_nulls(passage) | _nulls(score), "has no list", lines, where)
        query, lines, passage, score = query.take(pa.array(rows)), lines[rows], passage.flatten(), score.flatten()
    for array in (query, passage, score):
        _refuse(_nulls(array), "has a null", lines, where)
    scores = score.cast(pa.float64()).to_numpy()
    return CandidateBatch(lines, _ids(query), _ids(passage), scores, np.zeros(len(lines), np.int16))


def _ids(array: pa.Array) -> pa.Array:
    return array if pa.types.is_integer(array.type) else array.cast(pa.string())


def _nulls(array: pa.Array) -> np.ndarray:
    nulls: np.ndarray = array.is_null().to_numpy(zero_copy_only=False)
    return nulls


def _refuse(bad: np.ndarray, what: str, lines: Iterable[int], where: object) -> None:
    if bad.any():
        raise InputError(f"row {np.asarray(lines)[np.flatnonzero(bad)[0]]} {what}", where=where)


def _is_list(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_list(data_type) or pa.types.is_large_list(data_type))


def _is_id(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_integer(data_type) or pa.types.is_string(data_type) or pa.types.is_large_string(data_type))
