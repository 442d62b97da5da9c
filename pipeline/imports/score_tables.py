"""Reads scores from tables: rows of a pair, or of a query with lists of passages and scores.

Columns are recognised by the names that published data sets use, in any order. Lists may be written as strings of JSON.
A column of positives gives positives; `columns.ColumnCheck` decides about all others.

Shapes: R rows of a table, N pairs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.imports.candidate_batches import id_array, is_id
from pipeline.imports.columns import ColumnCheck, Layout, pick
from pipeline.imports.intake import POSITIVES, CandidateBatch

QUERY = ("query_id", "query-id", "qid", "query")
PASSAGE = (
    *("passage_id", "passage_ids", "corpus_id", "corpus-id", "document_id", "document_ids", "doc_ids", "doc_id"),
    *("docid", "docno", "pid"),
)
POSITIVE_IDS = ("positive_ids", "positive_id", "pos_ids", "pos_id", "positives", "pos")
SCORE = ("score", "scores", "label", "labels")
QUERY_TEXTS = ("query", "question", "anchor", "anc", "sentence1")
PASSAGE_TEXTS = ("document", "documents", "passage", "passages", "text", "texts", "sentence2")
_ROWS_PER_BATCH = 16_384


class ScoreColumns(NamedTuple):
    """Names of the columns with queries, passages and scores."""

    query: str
    passage: str
    score: str
    positives: str | None = None
    """Column of the relevant passages, if there is one."""

    def names(self) -> list[str]:
        """The columns that are read."""
        return [name for name in self if name is not None]


def read_score_tables(path: Path) -> Iterator[CandidateBatch]:
    """Read the pairs of a Parquet file, or of all files below a directory in the order of their names.

    `line` counts rows.

    Raises:
        InputError: a file cannot be read, lacks the columns, or has others that change the meaning.
    """
    first = 1
    unused: dict[str, None] = {}
    for file_path in parquet_files(path):
        with _opened(file_path) as file:
            columns = score_columns(file.schema_arrow, file_path)
            check_columns(columns, file.schema_arrow.names, file_path, unused)
            for batch in file.iter_batches(_ROWS_PER_BATCH, columns=columns.names()):
                for pairs in pairs_of(batch, columns, first, file_path):
                    yield pairs._replace(unused=list(unused))
                first += batch.num_rows


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """An open Parquet file, whose errors become InputError."""
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError:
        raise InputError("no such file", where=path) from None
    except (OSError, pa.ArrowException) as error:
        raise InputError("unreadable Parquet file", where=path, found=str(error)[:300]) from error


def parquet_files(path: Path) -> list[Path]:
    """The Parquet file, or all below a directory, which must hold no rows in another format.

    Raises:
        InputError: the directory has no Parquet file, or other files beside them.
    """
    if not path.is_dir():
        return [path]
    every = [file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith((".", "_"))]
    files = [file for file in every if file.suffix == ".parquet"]
    others = [str(file.relative_to(path)) for file in every if file not in files and file.suffix not in (".md", ".txt")]
    if not files:
        raise InputError("no Parquet file in it", where=path)
    if others:
        expected, todo = "Parquet files alone", "move the others away, or import them one by one"
        raise InputError("it has other files", where=path, expected=expected, found=", ".join(others[:5]), todo=todo)
    return files


def check_columns(
    columns: ScoreColumns, names: Iterable[str], where: object, unused: dict[str, None], *, lenient: bool = False
) -> None:
    """Check the columns of a table of scores, and add those that are not used to `unused`.

    Raises:
        InputError: a column that is not used changes the meaning.
    """
    layout = Layout("scores", frozenset(columns.names()))
    ColumnCheck(layout, where, lenient=lenient, unused=unused).see(names)


def positives_column(names: Iterable[str]) -> str | None:
    """The column of a table of scores that names the relevant passages; None if there is none."""
    known = set(names)
    return next((name for name in POSITIVE_IDS if name in known), None)


def has_positives(path: Path) -> bool:
    """Whether a Parquet file, or the first of a directory, has a column of positives.

    Raises:
        InputError: the file cannot be read.
    """
    with _opened(parquet_files(path)[0]) as file:
        return positives_column(file.schema_arrow.names) is not None


def refuse_grades(path: Path) -> None:
    """Refuse a table of scores, not said to be one, whose first scores may be grades of judgements.

    Raises:
        InputError: they are whole numbers; or it is no table of scores at all.
    """
    with _opened(parquet_files(path)[0]) as file:
        name = score_columns(file.schema_arrow, path).score
        batch = next(file.iter_batches(_ROWS_PER_BATCH, columns=[name]), None)
    if batch is not None and looks_like_grades(batch.column(0)):
        raise InputError(
            f"column {name!r} holds whole numbers, which may be grades or scores",
            where=path,
            expected="scores of a teacher",
            todo="pass --form parquet if they are scores; import judgements with: prep import hub --as qrels",
        )


def looks_like_grades(score: pa.Array) -> bool:
    """Whether numbers, or lists of them, may be grades of judgements: whole numbers from -2 to 10."""
    flat = score.flatten() if is_list(score.type) else score
    if not (pa.types.is_floating(flat.type) or pa.types.is_integer(flat.type)):
        return False
    numbers = flat.drop_null().cast(pa.float64()).to_numpy()
    return bool(len(numbers)) and bool(((numbers == np.round(numbers)) & (numbers >= -2) & (numbers <= 10)).all())


def score_columns(schema: pa.Schema, where: object, *, texts: bool = False) -> ScoreColumns:
    """Find the columns with queries, passages and scores.

    Args:
        schema: of the table.
        where: file or table, for messages.
        texts: whether queries and passages are looked up by text.

    Raises:
        InputError: a column is missing, or of the wrong type.
    """
    roles = (QUERY_TEXTS, PASSAGE_TEXTS, SCORE) if texts else (QUERY, PASSAGE, SCORE)
    # Beside an id, `query` is the text.
    queries = roles[0] if texts or not set(QUERY[:-1]) & set(schema.names) else QUERY[:-1]
    known_names = zip((queries, *roles[1:]), ("query", "passage", "score"), strict=True)
    names = [pick(schema.names, known, role, where) for known, role in known_names]
    expected = "columns {}, {} and {}, the last two lists or neither".format(*("|".join(known) for known in roles))
    if None in names:
        todo = None
        if "negative_id" in schema.names:
            todo = "margins of two passages do not give the scores of each: import the table of scores"
        of_texts = next((name for name in PASSAGE_TEXTS if name in schema.names), None)
        if not texts and of_texts and names[2] is not None and names[1] is None:
            raise InputError(
                f"column {of_texts!r} holds texts, not ids",
                where=where,
                expected=expected,
                found=", ".join(schema.names),
                todo="look passages up by text: prep import hub DIRECTORY --texts; the workspace must have them",
            )
        raise InputError("not a table of scores", where=where, expected=expected, found=schema.names, todo=todo)
    query, passage, score = (schema.field(name).type for name in names)
    lists = [is_list(data_type) for data_type in (passage, score)]
    inner = [column.value_type if is_list(column) else column for column in (query, passage, score)]
    is_number = pa.types.is_floating(inner[2]) or pa.types.is_integer(inner[2])
    written = _is_text(passage) and _is_text(score)  # lists as strings of JSON
    if lists[0] != lists[1] or is_list(query) or not all(map(_is_id, inner[:2])) or not (is_number or written):
        types = ", ".join(f"{name} {schema.field(name).type}" for name in names)
        raise InputError("columns of the wrong types", where=where, expected=expected, found=types)
    positives = None if texts else positives_column(schema.names)
    return ScoreColumns(str(names[0]), str(names[1]), str(names[2]), positives)


def pairs_of(batch: pa.RecordBatch, columns: ScoreColumns, first: int, where: object) -> Iterator[CandidateBatch]:
    """Flatten a batch (R,) of a table into pairs (N,), and its positives.

    Args:
        batch: some rows of the table.
        columns: which columns to read.
        first: number of the first row, from 1.
        where: file or table, for messages.

    Raises:
        InputError: a null, a row with more passages than scores, or fewer, or a string that is no list.
    """
    lines = np.arange(first, first + batch.num_rows)
    query, passage, score = (plain(batch.column(name)) for name in columns[:3])
    if _is_text(score.type):
        passage, score = (_parsed(column, lines, where) for column in (passage, score))
    pairs = _flat(query, passage, score, lines, where)
    yield pairs
    if columns.positives is not None:
        positives = plain(batch.column(columns.positives))
        if _is_text(positives.type) and is_list(passage.type) and not is_list(batch.column(columns.passage).type):
            positives = _parsed(positives, lines, where)
        known = positives.filter(positives.is_valid())
        rows = pa.array(np.flatnonzero(positives.is_valid().to_numpy(zero_copy_only=False)))
        zeros = pa.array(np.zeros(len(known)))
        if is_list(known.type):
            zeros = pa.ListArray.from_arrays(known.offsets.cast(pa.int32()), pa.array(np.zeros(len(known.values))))
        taken = _flat(query.take(rows), known, zeros, lines[rows.to_numpy()], where)
        yield taken._replace(list=np.full(len(taken.line), POSITIVES, np.int16))


def _flat(query: pa.Array, passage: pa.Array, score: pa.Array, lines: np.ndarray, where: object) -> CandidateBatch:
    if is_list(passage.type):
        lengths = [np.diff(array.offsets.to_numpy()) for array in (passage, score)]
        _refuse(lengths[0] != lengths[1], "has more passages than scores, or fewer", lines, where)
        rows = np.repeat(np.arange(len(query)), lengths[0])
        _refuse(_nulls(passage) | _nulls(score), "has no list", lines, where)
        query, lines, passage, score = query.take(pa.array(rows)), lines[rows], passage.flatten(), score.flatten()
    for array in (query, passage, score):
        _refuse(_nulls(array), "has a null", lines, where)
    scores = score.cast(pa.float64()).to_numpy()
    return CandidateBatch(lines, _ids(query), _ids(passage), scores, np.zeros(len(lines), np.int16))


def _parsed(column: pa.Array, lines: np.ndarray, where: object) -> pa.Array:
    """Lists from strings of JSON, `"[1, 2]"`."""
    values: list[list[object] | None] = []
    for line, text in zip(lines, column.to_pylist(), strict=True):
        try:
            value = None if text is None else json.loads(text)
        except ValueError:
            value = text
        if text is not None and not isinstance(value, list):
            raise InputError(
                f"columns of the wrong types: row {line} has no list in a string",
                where=where,
                expected='"[1, 2]"',
                found=text[:100],
            )
        values.append(value)
    items = [item for value in values if value is not None for item in value]
    if all(type(item) is float or type(item) is int for item in items) and any(type(item) is float for item in items):
        return pa.array(values, pa.list_(pa.float64()))
    if not all(is_id(item) for item in items):
        raise InputError("a list in a string holds other values than ids or numbers", where=where)
    flat = id_array(items)  # type: ignore[arg-type]
    offsets = np.cumsum([0, *(len(value or ()) for value in values)])
    nulls = pa.array([value is None for value in values])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat, mask=nulls)


def plain(array: pa.Array) -> pa.Array:
    """The array without dictionary encoding, as tables with categories have it."""
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _ids(array: pa.Array) -> pa.Array:
    return array if pa.types.is_integer(array.type) else array.cast(pa.string())


def _nulls(array: pa.Array) -> np.ndarray:
    nulls: np.ndarray = array.is_null().to_numpy(zero_copy_only=False)
    return nulls


def _refuse(bad: np.ndarray, what: str, lines: Iterable[int], where: object) -> None:
    if bad.any():
        raise InputError(f"row {np.asarray(lines)[np.flatnonzero(bad)[0]]} {what}", where=where)


def is_list(data_type: pa.DataType) -> bool:
    """Whether values are lists."""
    return bool(pa.types.is_list(data_type) or pa.types.is_large_list(data_type))


def _is_text(data_type: pa.DataType) -> bool:
    inner = data_type.value_type if pa.types.is_dictionary(data_type) else data_type
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner))


def _is_id(data_type: pa.DataType) -> bool:
    inner = data_type.value_type if pa.types.is_dictionary(data_type) else data_type
    return bool(pa.types.is_integer(inner) or _is_text(inner))
