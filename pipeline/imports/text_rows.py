"""Records from anywhere, Python objects or Arrow tables, as the rows that an import of tables takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.errors import InputError

TEXT_COLUMNS = ["external_id", "text"]
JUDGEMENT_COLUMNS = ["query", "passage", "grade"]
_ROWS_PER_BATCH = 65_536


def titled(title: str, text: str) -> str:
    """A passage with its title: a space between, as BEIR's own evaluation joins them."""
    return f"{title} {text}".strip()


def string_rows(records: Iterable[tuple[int, tuple[str, ...]]], columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Records of strings, each with its line, as batches; there is one at least."""
    stream = iter(records)
    schema = pa.schema([*((name, pa.string()) for name in columns), ("line", pa.int64())])
    first = True
    while (chunk := list(islice(stream, _ROWS_PER_BATCH))) or first:
        fields = zip(*(values for _, values in chunk), strict=True) if chunk else [()] * len(columns)
        arrays = [pa.array(values, pa.string()) for values in fields]
        yield pa.RecordBatch.from_arrays([*arrays, pa.array([line for line, _ in chunk], pa.int64())], schema=schema)
        first = False


def table_rows(
    batches: Iterable[pa.RecordBatch], columns: dict[str, str], where: Path | str
) -> Iterator[pa.RecordBatch]:
    """Columns of batches under new names, as strings, with the number of the row for a line.

    Raises:
        InputError: a column has nulls, or is no text or integer.
    """
    line = 1
    for batch in batches:
        arrays = [_strings(batch.column(old), old, line, where) for old in columns]
        lines = pa.array(np.arange(line, line + batch.num_rows))
        yield pa.RecordBatch.from_arrays([*arrays, lines], names=[*columns.values(), "line"])
        line += batch.num_rows


def _strings(array: pa.Array, name: str, line: int, where: Path | str) -> pa.Array:
    kind = array.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        raise InputError(f"column {name} is of the wrong type", where=where, expected="text or integers", found=kind)
    if array.null_count:
        first = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
        raise InputError(f"row {line + first} has no {name}", where=where)
    return array.cast(pa.string())
