"""Brings candidates from published files into a workspace: a query, a passage, a score, and the list they are in.

Readers yield `CandidateBatch` with external ids. `Intake` maps the ids to row numbers, counts those that the workspace
does not know, and writes the rows to buckets on disk. A bucket is a range of queries; whoever reads it needs the memory
of one bucket only.

Shapes: N rows of a batch, B buckets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.collection.external_ids import TABLE_KEYS, UNKNOWN, ExternalIds
from pipeline.collection.texts_by_content import IdsByText
from pipeline.errors import InputError
from pipeline.imports.columns import unused_line
from pipeline.storage.workspace import Workspace
from pipeline.tables.parquet import metadata_of

QUERIES_PER_BUCKET = 8_192
POSITIVES = -1
"""In place of the number of a list: the row names a relevant passage."""
RECORD = np.dtype([("query", "<i4"), ("passage", "<i4"), ("score", "<f4"), ("list", "<i2")])


class CandidateBatch(NamedTuple):
    """Rows as a published file has them."""

    line: np.ndarray
    """(N,) int64: line of the file, from 1, or row of a table."""
    query: pa.Array
    """(N,) external ids, integers or strings."""
    passage: pa.Array
    """(N,) external ids, integers or strings."""
    score: np.ndarray
    """(N,) float64"""
    list: np.ndarray
    """(N,) int16: number of the system's list, or POSITIVES."""
    unused: Iterable[str] = ()
    """Columns seen so far that the reader does not use."""


def existing(path: Path) -> Path:
    """Check that a file exists, and return its path.

    Raises:
        InputError: there is no such file.
    """
    if not path.is_file():
        raise InputError("no such file", where=path)
    return path


@dataclass
class Counts:
    """How many rows were read, and what was wrong with them."""

    rows: int = 0
    unknown_queries: int = 0
    unknown_passages: int = 0
    ambiguous: int = 0
    """Texts that several queries or passages of the workspace have; the first of these is taken."""
    repeated: int = 0
    """Rows that repeat another row of the file."""
    contradictions: int = 0
    """Pairs with several different scores; their mean is taken."""
    largest_difference: float = 0.0
    """Largest difference between two scores of the same pair."""
    not_judged: int = 0
    """Positives of the file that the workspace has no judgement for."""
    unused_columns: list[str] = field(default_factory=list)
    """Columns that the reader does not use."""

    def lines(self) -> list[str]:
        """Messages for what is not 0, and for the columns that were not used."""
        messages = [
            ("rows name a query that is not in the workspace", self.unknown_queries),
            ("rows name a passage that is not in the workspace", self.unknown_passages),
            ("texts are of several rows of the workspace; the first was taken", self.ambiguous),
            ("rows repeat another row", self.repeated),
            ("pairs have scores that contradict each other; their mean is taken", self.contradictions),
            ("positives are not among the judgements", self.not_judged),
        ]
        lines = [f"{count:,} {text}" for text, count in messages if count]
        return lines + ([unused_line(self.unused_columns)] if self.unused_columns else [])


@dataclass
class Intake:
    """Maps the ids of rows to row numbers and sorts the rows into buckets on disk."""

    workspace: Workspace
    path: Path
    """File that the rows come from, for messages."""
    directory: Path
    """Empty directory for the buckets."""
    edges: np.ndarray
    """(B,) int32 ascending from 0: first query of each bucket."""
    strict: bool = False
    """Whether an unknown id is an error."""
    unit: str = "line"
    """What `CandidateBatch.line` counts: line, row or query."""
    by_text: bool = False
    """Whether rows name queries and passages by text instead of by id."""
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._finders = [(IdsByText if self.by_text else ExternalIds)(self.workspace, name) for name in TABLE_KEYS]

    def take(self, batches: Iterable[CandidateBatch]) -> None:
        """Read all batches into the buckets.

        Raises:
            InputError: from the reader; a score is no finite float32; an id is unknown, and `strict`.
        """
        unused: dict[str, None] = {}
        for rows in batches:
            self._take(rows)
            unused |= dict.fromkeys(rows.unused)
        self.counts.unused_columns = list(unused)
        self.counts.ambiguous = sum(finder.ambiguous for finder in self._finders if isinstance(finder, IdsByText))

    def _take(self, rows: CandidateBatch) -> None:
        query, passage = (
            finder.find(column) for finder, column in zip(self._finders, (rows.query, rows.passage), strict=True)
        )
        with np.errstate(over="ignore"):
            score = rows.score.astype(np.float32)
        self._refuse("has a score that is no finite float32", ~np.isfinite(score), rows, rows.score)
        no_query, no_passage = query == UNKNOWN, passage == UNKNOWN
        if self.strict:
            self._refuse("names a query that is not in the workspace", no_query, rows, rows.query)
            self._refuse("names a passage that is not in the workspace", no_passage, rows, rows.passage)
        listed = rows.list >= 0
        self.counts.rows += int(listed.sum())
        self.counts.unknown_queries += int((no_query & listed).sum())
        self.counts.unknown_passages += int((no_passage & ~no_query & listed).sum())
        known = ~no_query & ~no_passage
        records = np.empty(int(known.sum()), RECORD)
        for name, values in (("query", query), ("passage", passage), ("score", score), ("list", rows.list)):
            records[name] = values[known]
        self._put(records)

    def _refuse(self, what: str, bad: np.ndarray, rows: CandidateBatch, values: pa.Array | np.ndarray) -> None:
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            raise InputError(f"{self.unit} {rows.line[first]} {what}", where=self.path, found=str(values[first]))

    def _put(self, records: np.ndarray) -> None:
        bucket = np.searchsorted(self.edges, records["query"], side="right") - 1
        key = bucket << 16 | (records["list"].astype(np.int64) - POSITIVES)
        if (key[1:] < key[:-1]).any():
            order = np.argsort(key, kind="stable")
            records, key = records[order], key[order]
        starts = np.flatnonzero(np.diff(key, prepend=-1))
        for start, end in zip(starts, np.append(starts, len(key))[1:], strict=True):
            with self._file(int(key[start]) >> 16, int(records["list"][start])).open("ab") as stream:
                records[start:end].tofile(stream)

    def _file(self, bucket: int, list_number: int) -> Path:
        return self.directory / f"{bucket:06d}.{list_number}"

    def bucket(self, number: int, list_number: int) -> np.ndarray:
        """Take the distinct records (N,) of a list out of a bucket, sorted by query, passage and score."""
        path = self._file(number, list_number)
        if not path.exists():
            return np.empty(0, RECORD)
        distinct = np.empty(0, RECORD)
        for chunk in _chunks(path):
            both = np.concatenate([distinct, chunk])
            distinct = _distinct(both)
            self.counts.repeated += len(both) - len(distinct) if list_number != POSITIVES else 0
        path.unlink()
        return distinct


def query_ranges(workspace: Workspace) -> np.ndarray:
    """First query (B,) of each bucket, with the same number of queries in all buckets but the last."""
    rows = sum(metadata_of(part).num_rows for part in workspace.parts("queries"))
    return np.arange(0, max(rows, 1), QUERIES_PER_BUCKET, dtype=np.int32)


def reconcile(records: np.ndarray, counts: Counts) -> np.ndarray:
    """Reduce distinct, sorted records of a list to one for each pair; different scores become their mean.

    >>> records = np.array([(0, 7, 1.0, 0), (0, 7, 2.0, 0), (0, 9, 5.0, 0)], RECORD)
    >>> reconcile(records, Counts())["score"].tolist()
    [1.5, 5.0]
    """
    if not len(records):
        return records
    same = (records["query"][1:] == records["query"][:-1]) & (records["passage"][1:] == records["passage"][:-1])
    starts = np.flatnonzero(np.concatenate([[True], ~same]))
    if len(starts) == len(records):
        return records
    ends = np.append(starts[1:], len(records))
    score = records["score"].astype(np.float64)
    means = np.add.reduceat(score, starts) / (ends - starts)
    counts.contradictions += int((ends - starts > 1).sum())
    # Within a pair records ascend by score.
    counts.largest_difference = max(counts.largest_difference, float((score[ends - 1] - score[starts]).max()))
    kept = records[starts]
    kept["score"] = means
    return kept


_CHUNK_ROWS = 4 << 20


def _chunks(path: Path) -> Iterator[np.ndarray]:
    with path.open("rb") as stream:
        while len(chunk := np.fromfile(stream, RECORD, _CHUNK_ROWS)):
            yield chunk


def _distinct(records: np.ndarray) -> np.ndarray:
    """The distinct records of a list, sorted by query, passage and score."""
    records = records[_order(records)]
    new = np.ones(len(records), bool)
    new[1:] = records[1:] != records[:-1]
    return records[new]


def _order(records: np.ndarray) -> np.ndarray:
    """Indices (N,) that sort the records."""
    # A single key is several times faster than three, and enough where no pair is repeated.
    pair = records["query"].astype(np.int64) << 32 | records["passage"]
    order = np.argsort(pair)
    return order if (np.diff(pair[order]) > 0).all() else np.lexsort((records["score"], pair))
