"""A store's files as DuckDB reads them: a file system of Python's, so that no extension is needed."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import duckdb
from fsspec.implementations.arrow import ArrowFSWrapper

from pipeline.storage.connection import Store, StoreFile, repeated
from pipeline.storage.location import StorePath

OPEN_FILES = 256
"""Files a connection remembers: DuckDB opens each, and asks for its size, dozens of times."""


def duckdb_name(connection: duckdb.DuckDBPyConnection, path: StorePath) -> str:
    """What the connection calls the object; its file system is registered there."""
    scheme = path.filesystem.type_name
    if scheme not in connection.list_filesystems():
        connection.register_filesystem(_Files(path.store))
    return f"{scheme}://{path.full}"


class _Files(ArrowFSWrapper):  # type: ignore[misc]
    """For one connection, whose views are of files as they stood when it first saw them."""

    cachable = False  # or fsspec would give every connection the same one

    def __init__(self, store: Store) -> None:
        super().__init__(store.filesystem)
        self._stream = lru_cache(OPEN_FILES)(lambda path: repeated(lambda: self.fs.open_input_file(path)))
        self._info = lru_cache(OPEN_FILES)(lambda path: repeated(lambda: super(_Files, self).info(path)))

    def info(self, path: str, **_: Any) -> Any:
        return self._info(path)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        if mode != "rb":
            raise ValueError("DuckDB only reads from stores")
        return StoreFile(self._stream(self._strip_protocol(path)), shared=True)
