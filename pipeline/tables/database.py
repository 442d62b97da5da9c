"""DuckDB connections with bounds, and the SQL files beside the code.

No connection ever fetches an extension. SQL files take their tables as views and their values as named
parameters, so each can be pasted into the DuckDB shell.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb

from pipeline.errors import UsageError
from pipeline.storage.location import AnyPath, StorePath

DEFAULT_MEMORY_LIMIT = "4GB"
_BYTES_A_THREAD = 64_000_000


@contextmanager
def connect(
    temp_directory: Path, *, memory_limit: str = DEFAULT_MEMORY_LIMIT, threads: int | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory database that spills to `temp_directory` beyond `memory_limit`.

    Without `threads`, all that the machine has and the limit feeds.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory_limit,
        "temp_directory": str(temp_directory),
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "threads": str(threads or fed_threads(os.cpu_count() or 1, memory_limit)),
    }
    connection = duckdb.connect(":memory:", config=config)
    try:
        # It would be written among what a command prints.
        connection.execute("SET enable_progress_bar = false")
        yield connection
    finally:
        connection.close()


def fed_threads(threads: int, memory_limit: str) -> int:
    """As many of so many threads as the limit feeds: where many share little memory, a query hardly ends."""
    return min(threads, max(1, memory_bytes(memory_limit) // _BYTES_A_THREAD))


def memory_bytes(text: str) -> int:
    """Bytes of an amount as the database writes it.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT])(i?)B", text, re.IGNORECASE)
    if not found:
        raise UsageError("malformed memory limit", expected="an amount like 500MB or 2GB", found=repr(text))
    return int(float(found[1]) * (1024 if found[3] else 1000) ** ("KMGT".index(found[2].upper()) + 1))


@cache
def sql(name: str) -> str:
    """Text of `pipeline/<name>.sql`; the name has the folder, as in "triples/kept"."""
    return files("pipeline").joinpath(f"{name}.sql").read_text(encoding="utf-8")


def view_parquet(connection: duckdb.DuckDBPyConnection, name: str, paths: Sequence[AnyPath]) -> None:
    """Make the files one view; rows keep file and row order."""
    connection.read_parquet(parquet_names(connection, paths)).create_view(name, replace=True)


def parquet_names(connection: duckdb.DuckDBPyConnection, paths: Sequence[AnyPath]) -> list[str]:
    """What the connection calls the files, in a store or not."""
    if any(isinstance(path, StorePath) for path in paths):
        from pipeline.tables.duckdb_files import duckdb_name

        return [duckdb_name(connection, path) if isinstance(path, StorePath) else str(path) for path in paths]
    return [str(path) for path in paths]


def one_row(
    connection: duckdb.DuckDBPyConnection, query: str, values: Mapping[str, Any] | None = None
) -> tuple[Any, ...]:
    """The only row of a query's result, read to its end so that the connection is free again."""
    (row,) = connection.execute(query, dict(values) if values else None).fetchall()
    return row
