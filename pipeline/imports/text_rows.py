"""Turns Python records or Arrow tables into the batches of strings that `CollectionSource` is made of.

Each batch has its columns as strings, and `line` int64 from 1 for messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.errors import InputError

_ROWS_PER_BATCH = 65_536


def titled(title: str, text: str) -> str:
    """The text of a passage that has a title, joined as BEIR's own evaluation joins them.

    >>> titled("Anatomy", "The heart pumps."), titled("", "The heart pumps.")
    ('Anatomy The heart pumps.', 'The heart pumps.')
    """
    return f"{title} {text}".strip()


def string_rows(records: Iterable[tuple[int, tuple[str, ...]]], columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Batches of (line, strings) records. Yields one empty batch if there are none, so that the schema is known."""
    stream = iter(records)
    schema = pa.schema([*((name, pa.string()) for name in columns), ("line", pa.int64())])
    first = True
    while (chunk := list(islice(stream, _ROWS_PER_BATCH))) or first:
        fields = zip(*(values for _, values in chunk), strict=True) if chunk else [()] * len(columns)
        arrays = [pa.array(values, pa.string()) for values in fields]
        yield pa.RecordBatch.from_arrays([*arrays, pa.array([line for line, _ in chunk], pa.int64())], schema=schema)
        first = False


def table_rows(
    batches: Iterable[pa.RecordBatch], columns: dict[str, str], where: Path | str, numbers: Sequence[str] = ()
) -> Iterator[pa.RecordBatch]:
    """Select and rename columns (old name → new name), as strings; `line` is the number of the row.

    Raises:
        InputError: a column has a null, or is neither text nor integers; those in `numbers` (new names) may have
            fractions.
    """
    line = 1
    for batch in batches:
        arrays = [_strings(batch.column(old), old, line, where, new in numbers) for old, new in columns.items()]
        lines = pa.array(np.arange(line, line + batch.num_rows))
        yield pa.RecordBatch.from_arrays([*arrays, lines], names=[*columns.values(), "line"])
        line += batch.num_rows


def _strings(array: pa.Array, name: str, line: int, where: Path | str, is_number: bool) -> pa.Array:
    array = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    data_type, allowed = array.type, [pa.types.is_string, pa.types.is_large_string, pa.types.is_integer]
    allowed += [pa.types.is_string_view, *([pa.types.is_floating] if is_number else [])]
    if not any(check(data_type) for check in allowed):
        what = f"column {name} is of the wrong type"
        raise InputError(what, where=where, expected="text or integers", found=data_type)
    if array.null_count:
        first = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
        raise InputError(f"row {line + first} has no {name}", where=where)
    return array.cast(pa.string())
