"""Selects the queries that a stage works on: all queries of a split, or a stable sample of its judged queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from pipeline import schemas
from pipeline.errors import MissingError, WorkspaceError
from pipeline.storage.workspace import MANIFEST, Workspace
from pipeline.tables.content import ContentHash
from pipeline.tables.database import connect, sql, view_parquet

HELD_OUT = "held_out"
"""Key of the manifest: for each held-out split, the split that it was taken from. Later imports respect it."""
MOST_SELECTIONS = 64

UNKNOWN = "unknown_judgements"


@dataclass(frozen=True)
class SelectedQueries:
    """Queries of one split, sorted by id."""

    ids: np.ndarray
    """(Q,) int32"""
    texts: list[str]
    """(Q,)"""
    fingerprint: str
    """Content fingerprint of ids and texts."""


def view_tables(connection: duckdb.DuckDBPyConnection, workspace: Workspace, *names: str) -> None:
    """Create views of the base tables `names` (`passages`, `queries`, `qrels`).

    Raises:
        WorkspaceError: a table has not been imported.
    """
    for name in names:
        parts = workspace.parts(name)
        if not parts:
            raise MissingError(f"no {name} yet", where=workspace.root, todo="import them: prep import msmarco --help")
        view_parquet(connection, name, parts)


def view_unknown_judgements(connection: duckdb.DuckDBPyConnection, workspace: Workspace) -> None:
    """Create the view `unknown_judgements` (`schemas.UNKNOWN_JUDGEMENTS`), which is empty if there are none.

    These judge passages that are not in the collection. An evaluation has to count them as never found.
    """
    if workspace.parts(UNKNOWN):
        view_parquet(connection, UNKNOWN, workspace.parts(UNKNOWN))
    else:
        connection.register(UNKNOWN, schemas.UNKNOWN_JUDGEMENTS.empty_table())


def known_splits(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Names of all splits; reads the view `queries`."""
    return [
        row[0]
        for row in connection.execute("SELECT DISTINCT unnest(splits) AS split FROM queries ORDER BY split").fetchall()
    ]


def require_split(connection: duckdb.DuckDBPyConnection, split: str) -> None:
    """Check that a split exists; reads the view `queries`.

    Raises:
        WorkspaceError: no query belongs to the split.
    """
    known = known_splits(connection)
    if split not in known:
        raise WorkspaceError(
            f"no queries of split {split!r}", expected=f"one of {', '.join(known)}", todo="check --split"
        )


def held_out_of(manifest: Mapping[str, Any], split: str) -> list[str]:
    """The splits that were held out of `split`, directly or through another one."""
    direct = [name for name, what in manifest.get(HELD_OUT, {}).items() if what["split"] == split]
    return direct + [name for parent in direct for name in held_out_of(manifest, parent)]


def select_queries(
    connection: duckdb.DuckDBPyConnection, workspace: Workspace, split: str, max_queries: int | None = None
) -> SelectedQueries:
    """Select the queries of a split; reads the view `queries`.

    With `max_queries`, selects at most that many queries with a relevant passage, by a stable hash of their ids.

    Raises:
        WorkspaceError: no query belongs to the split.
    """
    require_split(connection, split)
    table = _selected(connection, workspace, [split], max_queries)
    texts = table.column("text").cast(pa.string()).to_pylist()
    return SelectedQueries(table.column("query_id").to_numpy().astype(np.int32), texts, _fingerprint(table))


def selected_before(workspace: Workspace, split: str, max_queries: int | None) -> Iterator[str]:
    """Fingerprints of selections that hold all queries which `select_queries` gives now.

    The first is that of today's selection. The others are those from before queries were held out of the split: lists
    of more queries than the split has now are still complete.
    """
    held = held_out_of(workspace.read_json(MANIFEST), split)
    more = (names for count in range(len(held) + 1) for names in combinations(held, count))
    with connect(workspace.local) as connection:
        view_tables(connection, workspace, "queries")
        for names in islice(more, MOST_SELECTIONS):
            yield _fingerprint(_selected(connection, workspace, [split, *names], max_queries))


def _selected(
    connection: duckdb.DuckDBPyConnection, workspace: Workspace, splits: Sequence[str], max_queries: int | None
) -> pa.Table:
    if workspace.parts("qrels"):
        view_parquet(connection, "qrels", workspace.parts("qrels"))
    else:
        connection.register("qrels", schemas.QRELS.empty_table())
    values = {"splits": list(splits), "max_queries": max_queries}
    return connection.sql(sql("collection/select_queries"), params=values).to_arrow_table()


def _fingerprint(table: pa.Table) -> str:
    content = ContentHash(table.schema)
    for batch in table.to_batches():
        content.update(batch)
    return content.hexdigest()
