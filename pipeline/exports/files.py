"""The files an export is made of: Parquet in parts, JSON lines, tab-separated lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.tables.parts import part_name

ROWS_PER_FILE = 1_000_000


def write_parquet(directory: Path, tables: Iterable[pa.Table]) -> int:
    """Tables of one schema as `train-NNNNN.parquet`; returns the number of rows."""
    directory.mkdir(parents=True, exist_ok=True)
    writer, parts, room, rows = None, 0, 0, 0
    try:
        for table in tables:
            if writer is None or room <= 0:
                if writer is not None:
                    writer.close()
                writer = pq.ParquetWriter(directory / part_name(parts, "train"), table.schema, compression="zstd")
                parts, room = parts + 1, ROWS_PER_FILE
            writer.write_table(table)
            room -= table.num_rows
            rows += table.num_rows
    finally:
        if writer is not None:
            writer.close()
    return rows


def write_json_lines(path: Path, values: Iterable[Any]) -> int:
    """One JSON value a line; returns how many."""
    count = 0
    with text_file(path) as stream:
        for value in values:
            stream.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def write_tsv(path: Path, batches: Iterable[Iterable[Iterable[str]]]) -> int:
    """Batches of rows of fields; returns the number of rows."""
    count = 0
    with text_file(path) as stream:
        for batch in batches:
            for fields in batch:
                stream.write("\t".join(fields) + "\n")
                count += 1
    return count


def number(value: float) -> str:
    """A float32 as text that gives the same float32 again."""
    return f"{value:.9g}"


@contextmanager
def text_file(path: Path) -> Iterator[TextIO]:
    """A new file for UTF-8 text, in a folder that is made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        yield stream
