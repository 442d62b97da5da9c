"""Readers of files with a candidate in each line: runs, top-1000 files, and triples of ids or texts.

A format without scores gives each passage the score 0, or minus its rank where it has ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.evaluation.runs import ranks_of
from pipeline.imports.intake import POSITIVES, CandidateBatch
from pipeline.tables.delimited import first_line, read_fields, read_tsv

TREC = ["query", "q0", "passage", "rank", "score", "tag"]
MS_MARCO = ["query", "passage", "rank"]


def read_run_rows(path: Path) -> Iterator[CandidateBatch]:
    """Read a run: TREC's six columns with scores, or MS MARCO's query, passage and rank, scored by minus the rank.

    Raises:
        InputError: a line is malformed, a score is not a number, or a column that should hold ranks holds anything else
            (as in files of judgements, of triples, or of scores).
    """
    columns = MS_MARCO if len(first_line(path).split()) == len(MS_MARCO) else TREC
    for batch in read_fields(path, columns):
        if columns is TREC:
            yield _rows(batch, "passage", numbers(batch, "score", path), 0)
        else:
            yield _rows(batch, "passage", -ranks_of(batch, path).astype(np.float64), 0)


def read_top1000(path: Path) -> Iterator[CandidateBatch]:
    """Read lines of query id, passage id, query and passage; each passage scores 0.

    Raises:
        InputError: a line is malformed.
    """
    for batch in read_tsv(path, ["query", "passage", "query_text", "passage_text"]):
        _refuse_numbers(batch, ["query_text", "passage_text"], path)
        yield _rows(batch, "passage", np.zeros(batch.num_rows), 0)


def read_id_triples(path: Path) -> Iterator[CandidateBatch]:
    """Read lines of query, positive and negative id: the negatives as a list, all scored 0, and the positives.

    Raises:
        InputError: a line is malformed.
    """
    for batch in read_fields(path, ["query", "positive", "negative"]):
        _refuse_ranks(batch, path)
        yield _rows(batch, "negative", np.zeros(batch.num_rows), 0)
        yield _rows(batch, "positive", np.zeros(batch.num_rows), POSITIVES)


def read_text_triples(path: Path) -> Iterator[CandidateBatch]:
    """Read lines of query, positive and negative text (triples.train.small), for an `Intake` with `by_text`.

    Raises:
        InputError: a line is malformed.
    """
    for batch in read_tsv(path, ["query", "positive", "negative"]):
        yield _rows(batch, "negative", np.zeros(batch.num_rows), 0)
        yield _rows(batch, "positive", np.zeros(batch.num_rows), POSITIVES)


def _refuse_numbers(batch: pa.RecordBatch, columns: list[str], path: Path) -> None:
    """Refuse columns of texts that hold numbers alone, as a file of judgements has them."""
    for name in columns:
        if pc.all(pc.match_substring_regex(batch.column(name), r"^[-+]?\d+(\.\d+)?$")).as_py():
            first = batch.column(name)[0].as_py()
            todo = "judgements are imported by: prep import msmarco --qrels SPLIT=FILE"
            raise InputError(f"its {name} are numbers", where=path, expected="texts", found=first, todo=todo)


def _refuse_ranks(batch: pa.RecordBatch, path: Path) -> None:
    """Refuse a third column of grades, ranks or scores: it repeats few numbers, or counts up, or has fractions."""
    third = batch.column("negative")
    number = third.cast(pa.float64()).to_numpy() if _all_numbers(third) else None
    if number is None:
        return
    query = pc.dictionary_encode(batch.column("query")).indices.to_numpy()
    counts_up = (np.diff(query) == 0) & (np.diff(number) == 1)
    few = len(np.unique(number)) <= 5 and number.max() <= 4  # grades from 0 to 4
    begins = np.flatnonzero(np.diff(query, prepend=-1))
    ranked = counts_up.sum() == len(number) - len(begins) > 0 and (number[begins] <= 1).all()
    if few or ranked or (number != np.floor(number)).any():
        what = "its third column holds no ids of negatives: these are grades, ranks or scores"
        expected = "query, positive and negative id"
        raise InputError(what, where=path, expected=expected, found=third[0].as_py(), todo="prep import run reads runs")


def _all_numbers(texts: pa.Array) -> bool:
    return bool(pc.all(pc.match_substring_regex(texts, r"^-?\d+(\.\d+)?$")).as_py())


def numbers(batch: pa.RecordBatch, column: str, path: Path) -> np.ndarray:
    """Parse a column of strings as numbers (N,) float64.

    Raises:
        InputError: a string is not a number; names its line.
    """
    texts = batch.column(column)
    try:
        values: np.ndarray = texts.cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        is_number = pc.match_substring_regex(texts, r"(?i)^[-+]?(\d+\.?\d*|\.\d+|inf|nan)(e[-+]?\d+)?$")
        first = int(np.flatnonzero(~is_number.to_numpy(zero_copy_only=False))[0])
        line, text = (batch.column(name)[first].as_py() for name in ("line", column))
        raise InputError(f"line {line} has a bad {column}", where=path, expected="a number", found=text) from None
    return values


def _rows(batch: pa.RecordBatch, passage: str, score: np.ndarray, list_number: int) -> CandidateBatch:
    lists = np.full(batch.num_rows, list_number, np.int16)
    return CandidateBatch(batch.column("line").to_numpy(), batch.column("query"), batch.column(passage), score, lists)
