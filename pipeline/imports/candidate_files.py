"""Reading files that name candidates line by line: runs, top-1000 files, triples of ids."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.imports.intake import POSITIVES, Rows
from pipeline.tables.delimited import first_line, read_fields, read_tsv

TREC = ["query", "q0", "passage", "rank", "score", "tag"]
MS_MARCO = ["query", "passage", "rank"]


def read_run_rows(path: Path) -> Iterator[Rows]:
    """A run in TREC form, with its scores, or in MS MARCO form, with minus the rank for a score.

    Raises:
        InputError: malformed, or a score that is no number.
    """
    columns = MS_MARCO if len(first_line(path).split()) == len(MS_MARCO) else TREC
    for batch in read_fields(path, columns):
        score = numbers(batch, columns[-2] if columns is TREC else columns[-1], path)
        yield _rows(batch, "passage", score if columns is TREC else -score, 0)


def read_top1000(path: Path) -> Iterator[Rows]:
    """Lines of query id, passage id, query and passage: candidates without rank or score; each scores 0.

    Raises:
        InputError: malformed.
    """
    for batch in read_tsv(path, ["query", "passage", "query_text", "passage_text"]):
        yield _rows(batch, "passage", np.zeros(batch.num_rows), 0)


def read_id_triples(path: Path) -> Iterator[Rows]:
    """Lines of query, positive and negative id: the negatives as a list, each scoring 0, and the positives.

    Raises:
        InputError: malformed.
    """
    for batch in read_fields(path, ["query", "positive", "negative"]):
        yield _rows(batch, "negative", np.zeros(batch.num_rows), 0)
        yield _rows(batch, "positive", np.zeros(batch.num_rows), POSITIVES)


def read_text_triples(path: Path) -> Iterator[Rows]:
    """Lines of query, positive and negative as texts (triples.train.small), for an intake by text.

    Raises:
        InputError: malformed.
    """
    for batch in read_tsv(path, ["query", "positive", "negative"]):
        yield _rows(batch, "negative", np.zeros(batch.num_rows), 0)
        yield _rows(batch, "positive", np.zeros(batch.num_rows), POSITIVES)


def numbers(batch: pa.RecordBatch, column: str, path: Path) -> np.ndarray:
    """A column of texts as numbers (N,) float64.

    Raises:
        InputError: one is none.
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


def _rows(batch: pa.RecordBatch, passage: str, score: np.ndarray, list_number: int) -> Rows:
    lists = np.full(batch.num_rows, list_number, np.int16)
    return Rows(batch.column("line").to_numpy(), batch.column("query"), batch.column(passage), score, lists)
