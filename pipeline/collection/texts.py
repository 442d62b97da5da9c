"""Random access to texts by id in bounded memory, through a memory-mapped Arrow file.

The file is a cache below the workspace's local directory. It is made once from the Parquet parts of `passages` or
`queries`, is named by their content, and may be deleted at any time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.errors import MissingError
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace, atomic_write
from pipeline.tables.parquet import open_parquet
from pipeline.tables.parts import content_fingerprint, read_footers

CACHE = ".cache"
ROWS_PER_BATCH = 65_536
_SCHEMA = pa.schema([pa.field("text", pa.string(), nullable=False)])


class Texts:
    """The texts of `passages` or `queries`, indexed by id.

    Raises:
        WorkspaceError: the table has not been imported.
    """

    def __init__(self, workspace: Workspace, table: str) -> None:
        parts = workspace.parts(table)
        if not parts:
            raise MissingError(f"no {table} yet", where=workspace.root, todo="import them: prep import msmarco --help")
        path = workspace.local / CACHE / f"{table}-{content_fingerprint(read_footers(parts))}.arrow"
        if not path.exists():
            _write(path, parts)
            _remove_older(path, table)
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches = [reader.get_batch(i).column("text") for i in range(reader.num_record_batches)]
        self._starts = np.cumsum([0, *(len(batch) for batch in self._batches)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, ids: np.ndarray) -> list[str]:
        """Texts of the ids (N,), in the order of `ids`."""
        order = np.argsort(ids, kind="stable")
        sorted_ids = ids[order]
        cuts = np.searchsorted(sorted_ids, self._starts)
        texts = np.empty(len(ids), dtype=object)
        for batch, start, first, end in zip(self._batches, self._starts, cuts, cuts[1:], strict=False):
            if end > first:
                texts[order[first:end]] = batch.take(pa.array(sorted_ids[first:end] - start)).to_pylist()
        return list(texts)

    def chunks(self, rows: int = 16_384) -> Iterator[list[str]]:
        """Yield all texts by ascending id, in lists of at most `rows`."""
        for batch in self._batches:
            for start in range(0, len(batch), rows):
                yield batch.slice(start, rows).to_pylist()


def _write(path: Path, parts: Sequence[AnyPath]) -> None:
    with atomic_write(path) as stream, pa.ipc.new_file(stream, _SCHEMA) as writer:
        for part in parts:
            for batch in open_parquet(part).iter_batches(ROWS_PER_BATCH, columns=["text"]):
                writer.write_batch(batch.cast(_SCHEMA))


def _remove_older(path: Path, table: str) -> None:
    for other in path.parent.glob(f"{table}-*.arrow"):
        if other != path:
            other.unlink(missing_ok=True)
