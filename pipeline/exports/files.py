"""Writers for the files of an export: Parquet in parts, JSON lines, tab-separated lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.exports.card import Config
from pipeline.fingerprint import digest_files
from pipeline.tables.parts import part_name

ROWS_PER_FILE = 1_000_000
PARQUET = "train"
"""Start of the names of Parquet files."""
FINGERPRINT_LENGTH = 16
"""Hexadecimal digits of the fingerprint."""


def write_parquet(directory: Path, tables: Iterable[pa.Table]) -> int:
    """Write tables of the same schema as `train-NNNNN.parquet`, a million rows each; returns the number of rows.

    `name_by_content` adds the fingerprint to the names when all files of an export are written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    writer, parts, rows_left, rows = None, 0, 0, 0
    try:
        for table in tables:
            if writer is None or rows_left <= 0:
                if writer is not None:
                    writer.close()
                writer = pq.ParquetWriter(directory / part_name(parts, PARQUET), table.schema, compression="zstd")
                parts, rows_left = parts + 1, ROWS_PER_FILE
            writer.write_table(table)
            rows_left -= table.num_rows
            rows += table.num_rows
    finally:
        if writer is not None:
            writer.close()
    return rows


def write_json_lines(path: Path, values: Iterable[Any]) -> int:
    """Write each value as a line of JSON; returns the number of lines."""
    count = 0
    with text_file(path) as stream:
        for value in values:
            stream.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def write_tsv(path: Path, batches: Iterable[Iterable[Iterable[str]]]) -> int:
    """Write batches of rows of fields, without a header; returns the number of rows."""
    count = 0
    with text_file(path) as stream:
        for batch in batches:
            for fields in batch:
                stream.write("\t".join(fields) + "\n")
                count += 1
    return count


def number(value: float) -> str:
    """A float32 as text that reads back as the same float32.

    >>> number(0.1), number(-2.5)
    ('0.1', '-2.5')
    """
    return f"{value:.9g}"


def name_by_content(directory: Path, configs: Sequence[Config]) -> tuple[str, list[Config]]:
    """Put a fingerprint of all files into the names of Parquet files, and into the patterns that name them.

    Text files keep their names: trainers take them on the command line.

    Returns:
        The fingerprint, and the configurations with the new patterns.
    """
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    fingerprint = digest_files(files, directory)[:FINGERPRINT_LENGTH]
    for path in files:
        if path.suffix == ".parquet":
            path.rename(path.with_name(path.name.replace(PARQUET, f"{PARQUET}-{fingerprint}", 1)))
    named = [replace(config, files=config.files.replace("*", f"{PARQUET}-{fingerprint}-*")) for config in configs]
    return fingerprint, named


@contextmanager
def text_file(path: Path) -> Iterator[TextIO]:
    """Open a new file for UTF-8 text with Unix line ends; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        yield stream
