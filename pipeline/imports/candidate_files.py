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
from pipeline.imports.intake import POSITIVES, CandidateBatch
from pipeline.tables.delimited import first_line, read_fields, read_tsv

TREC = ["query", "q0", "passage", "rank", "score", "tag"]
MS_MARCO = ["query", "passage", "rank"]


def read_run_rows(path: Path) -> Iterator[CandidateBatch]:
    """Read a run: TREC's six columns with scores, or MS MARCO's query, passage and rank, scored by minus the rank.

    Raises:
        InputError: a line is malformed, or a score is not a number.
    """
    columns = MS_MARCO if len(first_line(path).split()) == len(MS_MARCO) else TREC
    for batch in read_fields(path, columns):
        score = numbers(batch, columns[-2] if columns is TREC else columns[-1], path)
        yield _rows(batch, "passage", score if columns is TREC else -score, 0)


def read_top1000(path: Path) -> Iterator[CandidateBatch]:
    """Read lines of query id, passage id, query and passage; each passage scores 0.

    Raises:
        InputError: a line is malformed.
    """
    for batch in read_tsv(path, ["query", "passage", "query_text", "passage_text"]):
        yield _rows(batch, "passage", np.zeros(batch.num_rows), 0)


def read_id_triples(path: Path) -> Iterator[CandidateBatch]:
    """Read lines of query, positive and negative id: the negatives as a list, all scored 0, and the positives.

    Raises:
        InputError: a line is malformed.
    """
    for batch in read_fields(path, ["query", "positive", "negative"]):
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
