"""A store's files as DuckDB reads them: a file system of Python's, so that no extension is needed.

DuckDB seeks and reads in two calls, and several of its threads may share a file; so each thread has its own place in it.
"""

from __future__ import annotations

import threading
from typing import Any

import duckdb
from fsspec.implementations.arrow import ArrowFSWrapper

from pipeline.store import StorePath


def duckdb_name(connection: duckdb.DuckDBPyConnection, path: StorePath) -> str:
    """What the connection calls the object; its file system is registered there."""
    scheme = path.filesystem.type_name
    if scheme not in connection.list_filesystems():
        connection.register_filesystem(_Files(path.filesystem))
    return f"{scheme}://{path.full}"


class _Files(ArrowFSWrapper):  # type: ignore[misc]
    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        if mode != "rb":
            raise ValueError("DuckDB only reads from stores")
        return _File(self.fs.open_input_file(self._strip_protocol(path)))


class _File:
    """An open object."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._size, self._of_thread = stream, stream.size(), threading.local()

    @property
    def _place(self) -> int:
        return getattr(self._of_thread, "place", 0)

    def seek(self, place: int, whence: int = 0) -> int:
        self._of_thread.place = place + (0, self._place, self._size)[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def read(self, count: int = -1) -> bytes:
        count = self._size - self._place if count < 0 else count
        found = bytes(self._stream.read_at(count, self._place))
        self._of_thread.place = self._place + len(found)
        return found

    def close(self) -> None:
        self._stream.close()
