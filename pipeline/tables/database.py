"""DuckDB connections with limits on memory and threads, and access to the `.sql` files beside the code.

Connections never download extensions. SQL files take their tables as views and their values as named parameters: each
can be pasted into the DuckDB shell.
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
_BYTES_PER_THREAD = 64_000_000


@contextmanager
def connect(
    temp_directory: Path, *, memory_limit: str = DEFAULT_MEMORY_LIMIT, threads: int | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory database that spills to `temp_directory` beyond `memory_limit`.

    `threads` defaults to the machine's cores, or fewer if the memory limit cannot sustain them.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory_limit,
        "temp_directory": str(temp_directory),
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "threads": str(threads or threads_for_memory(os.cpu_count() or 1, memory_limit)),
    }
    connection = duckdb.connect(":memory:", config=config)
    try:
        # The progress bar would mix with the output of commands.
        connection.execute("SET enable_progress_bar = false")
        yield connection
    finally:
        connection.close()


def threads_for_memory(threads: int, memory_limit: str) -> int:
    """The number of threads, at most `threads`, that the memory limit can sustain.

    Queries become extremely slow when many threads share little memory.

    >>> threads_for_memory(8, "1GB"), threads_for_memory(8, "128MB")
    (8, 2)
    """
    return min(threads, max(1, memory_bytes(memory_limit) // _BYTES_PER_THREAD))


def memory_bytes(text: str) -> int:
    """Parse an amount of memory in DuckDB's notation into bytes.

    >>> memory_bytes("2GB"), memory_bytes("1.5 KiB")
    (2000000000, 1536)

    Raises:
        UsageError: the text is no amount of memory.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT])(i?)B", text, re.IGNORECASE)
    if not match:
        raise UsageError("malformed memory limit", expected="an amount like 500MB or 2GB", found=repr(text))
    return int(float(match[1]) * (1024 if match[3] else 1000) ** ("KMGT".index(match[2].upper()) + 1))


@cache
def sql(name: str) -> str:
    """Text of `pipeline/<name>.sql`; `name` includes the folder, as in "triples/kept"."""
    return files("pipeline").joinpath(f"{name}.sql").read_text(encoding="utf-8")


def view_parquet(connection: duckdb.DuckDBPyConnection, name: str, paths: Sequence[AnyPath]) -> None:
    """Create a view over Parquet files; rows keep the order of files and rows.

    The rows are those of the files, whatever their directories are called. All SQL reads files through this function.
    """
    # A directory called query_id=5 would replace the column query_id (Hive partitioning).
    files = connection.read_parquet(_names(connection, paths), hive_partitioning=False)
    files.create_view(name, replace=True)


def _names(connection: duckdb.DuckDBPyConnection, paths: Sequence[AnyPath]) -> list[str]:
    """The names under which the connection reads the files, on disk or in a store."""
    names = [str(path) for path in paths]
    if any(isinstance(path, StorePath) for path in paths):
        from pipeline.tables.duckdb_files import duckdb_name

        names = [duckdb_name(connection, path) if isinstance(path, StorePath) else str(path) for path in paths]
    # DuckDB takes a name for a pattern: in a directory called a*b it would also read the files of a directory axb.
    return [re.sub(r"([*?[])", r"[\1]", name) for name in names]


def single_row(
    connection: duckdb.DuckDBPyConnection, query: str, values: Mapping[str, Any] | None = None
) -> tuple[Any, ...]:
    """The only row of a query's result. Reads the result to its end, which frees the connection for the next query."""
    (row,) = connection.execute(query, dict(values) if values else None).fetchall()
    return row
