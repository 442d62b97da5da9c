"""Lets DuckDB read objects of a store through a Python file system, without the httpfs extension."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import duckdb
from fsspec.implementations.arrow import ArrowFSWrapper

from pipeline.storage.connection import Store, StoreFile, repeated
from pipeline.storage.location import StorePath

OPEN_FILES = 256
"""Number of open files a connection caches: DuckDB opens a file and reads its size dozens of times."""


def duckdb_name(connection: duckdb.DuckDBPyConnection, path: StorePath) -> str:
    """The name under which the connection reads the object; registers the store's file system if necessary."""
    scheme = path.filesystem.type_name
    if scheme not in connection.list_filesystems():
        connection.register_filesystem(_Files(path.store))
    return f"{scheme}://{path.full}"


class _Files(ArrowFSWrapper):  # type: ignore[misc]
    """File system for one connection. It caches files: later changes to an object are not seen."""

    cachable = False  # fsspec would share one instance among all connections

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
