"""Texts compared by content instead of by id.

`text_hashes` reads the stored hashes of all texts, `IdsByText` finds the rows of texts that come without ids, and
`same_texts` groups the passages that differ only in case and white space. A text's hash is `text_hash` of the tables:
the lower 64 bits of MD5 over its UTF-8 bytes. Changes no table; `same_texts` keeps its result as a cache file.

Shapes: N rows of a table, or N look-ups.
"""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.collection.external_ids import TABLE_KEYS, UNKNOWN, hash_strings
from pipeline.collection.selection import view_tables
from pipeline.collection.texts import CACHE
from pipeline.errors import MissingError
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace, atomic_write
from pipeline.tables.database import sql
from pipeline.tables.parquet import read_columns
from pipeline.tables.parts import content_fingerprint, read_footers

SCHEMA = pa.schema([pa.field("passage_id", pa.int32()), pa.field("text_id", pa.int32())])
STATEMENTS = {"collection/same_texts": 1}
"""Statement → its version. Raise the version when the statement gives other groups: cached groups are then not used."""


def text_hashes(workspace: Workspace, table: str) -> np.ndarray:
    """Hashes of all texts of `queries` or `passages`, (N,) uint64, indexed by id.

    Raises:
        MissingError: the table has not been imported.
    """
    ids, hashes = _read_hashes(workspace, table)
    by_id = np.zeros(len(ids), np.uint64)
    by_id[ids] = hashes
    return by_id


class IdsByText:
    """Finds ids of `queries` or `passages` by text, for published files that give texts and no ids.

    Takes 12 bytes of memory per text. A text that several rows share is resolved to the lowest id; `ambiguous` counts
    the look-ups of these texts.

    Raises:
        MissingError: the table has not been imported.
    """

    def __init__(self, workspace: Workspace, table: str) -> None:
        ids, hashes = _read_hashes(workspace, table)
        order = np.lexsort((ids, hashes))
        hashes, ids = hashes[order], ids[order]
        is_first = np.ones(len(hashes), bool)
        is_first[1:] = hashes[1:] != hashes[:-1]
        starts = np.flatnonzero(is_first)
        self._hashes, self._ids = hashes[starts], ids[starts]
        self._shared = np.diff(np.append(starts, len(hashes))) > 1
        self.ambiguous = 0
        """Number of look-ups of a text that several rows share."""

    def find(self, texts: pa.Array) -> np.ndarray:
        """Ids of the texts (N,), as (N,) int32; UNKNOWN for texts that the table does not have."""
        hashes = hash_strings(texts)
        positions = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        known = self._hashes[positions] == hashes
        self.ambiguous += int((self._shared[positions] & known).sum())
        return np.where(known, self._ids[positions], UNKNOWN).astype(np.int32)


def same_texts(connection: duckdb.DuckDBPyConnection, workspace: Workspace) -> AnyPath:
    """Path of a Parquet file (`SCHEMA`) of all passages that share their normalised text with another passage.

    Normalisation ignores case and differences in white space. `text_id` is the lowest passage id of each group. The
    file is computed once per state of the collection and may be deleted at any time.
    """
    content = content_fingerprint(read_footers(workspace.parts("passages")))
    version = STATEMENTS["collection/same_texts"]
    path = workspace.path(CACHE, f"same-texts-{content}{f'-{version}' if version > 1 else ''}.parquet")
    if not path.exists():
        view_tables(connection, workspace, "passages")
        groups = connection.sql(sql("collection/same_texts")).to_arrow_table().cast(SCHEMA)
        with atomic_write(path) as stream:
            pq.write_table(groups, stream)
    return path


def _read_hashes(workspace: Workspace, table: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids (N,) int32 and hashes (N,) uint64 of a table, in file order."""
    parts = [read_columns(path, [TABLE_KEYS[table], "text_hash"]) for path in workspace.parts(table)]
    if not parts:
        raise MissingError(f"no {table} yet", where=workspace.root, todo="import them: prep import --help")
    ids, hashes = (np.concatenate([part.column(i).to_numpy() for part in parts]) for i in range(2))
    return ids, hashes
