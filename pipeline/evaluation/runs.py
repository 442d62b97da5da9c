"""Runs (ranked lists): ranking with one tie rule, and reading and writing run files.

Rows are ranked by descending score, then by ascending passage id (collection order). Runs are written in TREC format
with external ids. If scores tie, the lower rank gets the next smaller float32, because evaluation tools sort by score
and would otherwise break ties by rules that differ.

Shapes: N pairs, R ranked rows.
"""

from __future__ import annotations

from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.collection.selection import view_tables
from pipeline.errors import InputError, WorkspaceError
from pipeline.storage.atomic_files import remove
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace, atomic_write
from pipeline.tables.database import connect
from pipeline.tables.delimited import read_fields

_MAGNITUDE = 0x7FFF_FFFF
_LOWEST = -int(np.finfo(np.float32).max.view(np.int32))
"""The lowest float32, as a whole number of steps from 0."""
_BETWEEN_QUERIES = 1 << 34
"""More than all steps of float32 and all ranks together; leaves room for 2**29 queries in 64 bits."""
MOST_RANKS = np.iinfo(np.int16).max


class Run(NamedTuple):
    """Ranked rows by ascending query, best first; the scores of a query strictly fall."""

    query_id: np.ndarray  # (R,) int32
    passage_id: np.ndarray  # (R,) int32
    rank: np.ndarray  # (R,) int32 from 1
    score: np.ndarray  # (R,) float32


def rank_rows(query_id: np.ndarray, passage_id: np.ndarray, score: np.ndarray, depth: int | None = None) -> Run:
    """Rank scored pairs, given as columns (N,), by the tie rule; keep at most `depth` passages of each query.

    >>> run = rank_rows(np.array([0, 0, 0]), np.array([5, 3, 4]), np.array([1.0, 1.0, 2.0]))
    >>> run.passage_id, run.rank
    (array([4, 3, 5], dtype=int32), array([1, 2, 3], dtype=int32))
    """
    score = score.astype(np.float32)
    order = np.lexsort((passage_id, -score, query_id))
    query_id, passage_id, score = query_id[order], passage_id[order], score[order]
    starts = np.flatnonzero(np.diff(query_id, prepend=query_id[:1] - 1))
    lengths = np.diff(np.append(starts, len(query_id)))
    rank = np.arange(len(query_id)) - np.repeat(starts, lengths) + 1
    if depth is not None:
        kept = rank <= depth
        query_id, passage_id, score, rank = query_id[kept], passage_id[kept], score[kept], rank[kept]
    return Run(query_id.astype(np.int32), passage_id.astype(np.int32), rank.astype(np.int32), _untie(score, rank))


def _untie(score: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Scores (R,) that strictly fall within each query, changed by the smallest possible steps."""
    # The bits of a float32 are a sign and a magnitude: as whole numbers of steps from 0, neighbours differ by 1.
    bits = (score + np.float32(0)).view(np.int32).astype(np.int64)  # + 0 turns -0.0 into 0.0
    step = np.where(bits < 0, -(bits & _MAGNITUDE), bits)
    # "Below the row before" becomes "not above the row before" once each row is lifted by its rank, and with each query
    # lowered far below the one before it, one running minimum serves all queries.
    first = np.flatnonzero(rank == 1)
    length = np.diff(np.append(first, len(rank)))
    lift = rank - np.repeat(np.arange(len(first)), length) * _BETWEEN_QUERIES
    step = np.minimum.accumulate(step + lift) - lift
    # At the bottom of float32, ties rise instead of falling to -inf.
    step = np.maximum(step, _LOWEST + np.repeat(length, length) - rank)
    falling: np.ndarray = np.where(step < 0, -step | ~_MAGNITUDE, step).astype(np.int32).view(np.float32)
    return falling


def external_ids(workspace: Workspace, table: str, ids: np.ndarray) -> np.ndarray:
    """External ids (N,) of query or passage ids (N,)."""
    key = {"queries": "query_id", "passages": "passage_id"}[table]
    with connect(workspace.local) as connection:
        view_tables(connection, workspace, table)
        connection.register("wanted", pa.table({key: np.unique(ids)}))
        known = connection.execute(
            f"SELECT {key}, external_id FROM {table} SEMI JOIN wanted USING ({key}) ORDER BY {key}"
        ).fetchnumpy()
    return np.asarray(known["external_id"])[np.searchsorted(known[key], ids)]


def write_run(workspace: Workspace, name: str, run: Run) -> AnyPath:
    """Write `runs/<name>.run` in TREC format: query, Q0, passage, rank, score, tag.

    The facts of an earlier run of this name, `runs/<name>.json`, are removed first: they describe that run.

    Raises:
        WorkspaceError: an id has white space, so that no reader could tell the fields of its line apart.
    """
    queries = _one_field("queries", external_ids(workspace, "queries", run.query_id))
    passages = _one_field("passages", external_ids(workspace, "passages", run.passage_id))
    remove(workspace.path("runs", f"{name}.json"))
    path = workspace.path("runs", f"{name}.run")
    with atomic_write(path) as stream:
        for query, passage, rank, score in zip(queries, passages, run.rank, run.score, strict=True):
            stream.write(f"{query} Q0 {passage} {rank} {score:.9g} {name}\n".encode())
    return path


def _one_field(table: str, ids: np.ndarray) -> np.ndarray:
    """The external ids (N,). Each must be a single field of a line."""
    # Imports refuse these ids; a workspace that was made before they did may have some.
    bad = next((name for name in ids if name.split() != [name]), None)
    if bad is not None:
        raise WorkspaceError(
            f"the {table} have an id with white space, which a run file cannot hold",
            found=repr(bad),
            todo="import the collection into a new workspace, with other ids",
        )
    return ids


def read_run(workspace: Workspace, path: AnyPath) -> Run:
    """Read a run file in TREC format (six fields) or MS MARCO format (query, passage, rank).

    Raises:
        InputError: a line is malformed, or names an unknown query or passage, or a third column holds no ranks.
    """
    trec = ["query", "q0", "passage", "rank", "score", "tag"]
    try:
        rows = pa.Table.from_batches(list(read_fields(path, trec)))
    except InputError as error:
        if len(_first_fields(path)) != 3:
            raise error
        rows = pa.Table.from_batches(list(read_fields(path, ["query", "passage", "rank"])))
        ranks_of(rows.combine_chunks().to_batches()[0], path)
    with connect(workspace.local) as connection:
        view_tables(connection, workspace, "queries", "passages")
        connection.register("rows", rows)
        value = "try_cast(score AS FLOAT)" if "score" in rows.column_names else "-try_cast(rank AS INT)::FLOAT"
        ranked = connection.sql(
            f"SELECT line, query, passage, query_id, passage_id, {value} AS score FROM rows "
            "LEFT JOIN queries ON queries.external_id = query LEFT JOIN passages ON passages.external_id = passage "
            "ORDER BY line"
        ).to_arrow_table()
        _refuse(connection, ranked, path)
    return rank_rows(*(ranked.column(name).to_numpy() for name in ("query_id", "passage_id", "score")))


def ranks_of(batch: pa.RecordBatch, path: AnyPath) -> np.ndarray:
    """The ranks (N,) int64 of rows of query, passage and rank, without scores.

    Judgements, triples and scores have three columns, too. So ranks have to be whole numbers from 1, each once for a
    query, some of them 1 and not all of them, and a query has a passage once.

    Raises:
        InputError: they are not; names the first line.
    """
    texts, query = batch.column("rank"), pc.dictionary_encode(batch.column("query")).indices.to_numpy()
    whole = pc.match_substring_regex(texts, r"^\d{1,9}$").to_numpy(zero_copy_only=False)
    rank: np.ndarray = pc.if_else(pa.array(whole), texts, "0").cast(pa.int64()).to_numpy()
    wrong = (rank < 1) | (rank > MOST_RANKS)
    order = np.lexsort((rank, query))
    wrong[order[1:][(np.diff(query[order]) == 0) & (np.diff(rank[order]) == 0)]] = True
    passage = pc.dictionary_encode(batch.column("passage")).indices.to_numpy()
    order = np.lexsort((passage, query))
    wrong[order[1:][(np.diff(query[order]) == 0) & (np.diff(passage[order]) == 0)]] = True
    wrong |= len(rank) > 1 and bool((rank == 1).all() or not (rank == 1).any())
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        line, name, text = (batch.column(column)[first].as_py() for column in ("line", "query", "rank"))
        raise InputError(
            f"line {line} has no rank in its third column",
            where=path,
            expected=f"query, passage and rank: whole numbers from 1 to {MOST_RANKS}, some 1, each once for a query",
            found=f"{text} for query {name}",
            todo="write a run of scores in TREC's six columns; judgements and triples are imported by other commands",
        )
    return rank


def _first_fields(path: AnyPath) -> list[str]:
    with path.open("rb") as stream:
        return stream.readline().decode("utf-8", "replace").split()


def _refuse(connection: duckdb.DuckDBPyConnection, ranked: pa.Table, path: AnyPath) -> None:
    """Raise an error for the first bad line: an unknown id, a bad score, or a passage that was ranked before."""
    connection.register("ranked", ranked)
    bad = connection.execute(
        "SELECT line, query, passage, query_id, passage_id FROM ranked "
        "WHERE query_id IS NULL OR passage_id IS NULL OR score IS NULL OR NOT isfinite(score) ORDER BY line LIMIT 1"
    ).fetchall()
    for line, query, passage, query_id, passage_id in bad:
        if query_id is None:
            raise InputError(
                f"line {line} names an unknown query",
                where=path,
                expected="a query id of the workspace",
                found=query,
            )
        if passage_id is None:
            raise InputError(
                f"line {line} names an unknown passage",
                where=path,
                expected="a passage id of the workspace",
                found=passage,
            )
        raise InputError(f"line {line} has no finite score or rank", where=path)
    twice = connection.execute(
        "SELECT max(line), query, passage FROM ranked GROUP BY query, passage HAVING count(*) > 1 ORDER BY 1 LIMIT 1"
    ).fetchall()
    for line, query, passage in twice:
        raise InputError(f"line {line} ranks a passage twice", where=path, found=f"query {query}, passage {passage}")
