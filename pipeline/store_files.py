"""A store's files as DuckDB reads them: a file system of Python's, so that no extension is needed."""

from __future__ import annotations

from typing import Any

import duckdb
from fsspec.implementations.arrow import ArrowFSWrapper

from pipeline.store import StorePath
from pipeline.store_connection import Store, repeated


def duckdb_name(connection: duckdb.DuckDBPyConnection, path: StorePath) -> str:
    """What the connection calls the object; its file system is registered there."""
    scheme = path.filesystem.type_name
    if scheme not in connection.list_filesystems():
        connection.register_filesystem(_Files(path.store))
    return f"{scheme}://{path.full}"


class _Files(ArrowFSWrapper):  # type: ignore[misc]
    def __init__(self, store: Store) -> None:
        super().__init__(store.filesystem)
        self._store = store

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        if mode != "rb":
            raise ValueError("DuckDB only reads from stores")
        return StorePath(self._store, self._strip_protocol(path).partition("/")[2]).open()

    def info(self, path: str, **options: Any) -> Any:
        return repeated(lambda: super(_Files, self).info(path, **options))
