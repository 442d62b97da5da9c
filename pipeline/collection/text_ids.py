"""From texts to row numbers, by content: for published files that give texts and no ids.

Texts are compared by the `text_hash` of the tables, 12 bytes for each. A text that several rows have stands for
the first of them; how many look-ups were such is counted.

Shapes: N look-ups.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

from pipeline.collection.external_ids import TABLE_KEYS, UNKNOWN
from pipeline.errors import MissingError
from pipeline.storage.workspace import Workspace
from pipeline.tables.parquet import read_columns


class TextIds:
    """The texts of `queries` or `passages`."""

    def __init__(self, workspace: Workspace, table: str) -> None:
        parts = workspace.parts(table)
        if not parts:
            raise MissingError(f"no {table} yet", where=workspace.root, todo="import them: prep import --help")
        columns = [read_columns(part, ["text_hash", TABLE_KEYS[table]]) for part in parts]
        hashes, ids = (pa.concat_tables(columns).column(i).to_numpy() for i in range(2))
        order = np.lexsort((ids, hashes))
        hashes, ids = hashes[order], ids[order]
        new = np.ones(len(hashes), bool)
        new[1:] = hashes[1:] != hashes[:-1]
        starts = np.flatnonzero(new)
        self._hashes, self._ids = hashes[starts], ids[starts]
        self._shared = np.diff(np.append(starts, len(hashes))) > 1
        self.ambiguous = 0
        """Look-ups of a text that several rows have."""

    def find(self, texts: pa.Array) -> np.ndarray:
        """Row numbers (N,) int32 of texts (N,); UNKNOWN for those that are not there."""
        digests = b"".join(hashlib.md5(text.encode(), usedforsecurity=False).digest()[8:] for text in texts.to_pylist())
        wanted = np.frombuffer(digests, "<u8")
        places = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        known = self._hashes[places] == wanted
        self.ambiguous += int((self._shared[places] & known).sum())
        return np.where(known, self._ids[places], UNKNOWN).astype(np.int32)
