"""Opens Parquet files on disk or in a store; from a store, only the requested columns are downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.location import AnyPath


def open_parquet(path: AnyPath) -> pq.ParquetFile:
    """Open a file for reading; the caller closes it.

    Raises:
        OSError, pa.ArrowException: the file is missing or not Parquet.
    """
    if isinstance(path, Path):
        return pq.ParquetFile(path)
    # Requests one column of a row group at a time; pre-buffering would hold the whole file in memory.
    return pq.ParquetFile(path.open(), pre_buffer=False)


def read_columns(path: AnyPath, columns: Sequence[str]) -> pa.Table:
    """Read some columns of all rows."""
    with open_parquet(path) as file:
        return file.read(columns=list(columns))


def metadata_of(path: AnyPath) -> pq.FileMetaData:
    """The metadata of a file: its row groups and key-value pairs."""
    with open_parquet(path) as file:
        return file.metadata
