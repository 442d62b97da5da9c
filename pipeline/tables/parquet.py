"""Opening Parquet files wherever they stand: on disk, or in a store, of which only what is asked for is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.location import AnyPath


def open_parquet(path: AnyPath) -> pq.ParquetFile:
    """A file to read from; close it.

    Raises:
        OSError, pa.ArrowException: not there, or no Parquet file.
    """
    if isinstance(path, Path):
        return pq.ParquetFile(path)
    # Each column of a row group is one request, when its turn comes; buffered ahead, the whole file would be in memory.
    return pq.ParquetFile(path.open(), pre_buffer=False)


def read_columns(path: AnyPath, columns: Sequence[str]) -> pa.Table:
    """Some columns of a whole file."""
    with open_parquet(path) as file:
        return file.read(columns=list(columns))


def metadata_of(path: AnyPath) -> pq.FileMetaData:
    """What a file says of its row groups."""
    with open_parquet(path) as file:
        return file.metadata
