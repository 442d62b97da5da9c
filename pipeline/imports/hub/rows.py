"""Reads the files of a data set as Arrow batches, with every value as it is written.

CSV columns are strings: no id loses its zeros, and no text `NA` becomes a null. In JSON, ids are integers or strings,
as written. Parquet and Arrow files keep their types. Types may differ from batch to batch.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.imports.hub.files import SplitFiles
from pipeline.tables.compression import DAMAGED, decompressed, open_binary, peek, refuse_formats
from pipeline.tables.json_lines import LONGEST_LINE_BYTES, bad_line, read_objects, unique_keys

ROWS_PER_BATCH = 16_384


def read_rows(files: SplitFiles) -> Iterator[pa.RecordBatch]:
    """Stream the rows of all files, in their order.

    Raises:
        InputError: a file cannot be read.
    """
    for name in files.names:
        where = Path(name) if not name.startswith("hf://") else name
        try:
            yield from _read(files, name, where)
        except (pa.ArrowException, UnicodeDecodeError, csv.Error, *DAMAGED) as error:
            raise InputError("cannot be read", where=where, found=str(error)[:300]) from error


def _read(files: SplitFiles, name: str, where: Path | str) -> Iterator[pa.RecordBatch]:
    if files.format == "parquet":
        with _open_plain(name) as stream, pq.ParquetFile(stream) as file:
            yield from file.iter_batches(ROWS_PER_BATCH)
    elif files.format == "arrow":
        with _open_plain(name) as stream:
            yield from _arrow(stream)
    elif files.format == "json":
        yield from _json(name, where)
    else:
        endings = PurePosixPath(name).suffixes
        tabs = files.separator == "," and ".tsv" in endings
        yield from _csv(name, where, "\t" if tabs else files.separator)


def _open_plain(name: str) -> BinaryIO:
    if not name.startswith("hf://"):
        return Path(name).open("rb")
    import fsspec

    stream: BinaryIO = fsspec.open(name, "rb").open()
    return stream


def _open(name: str, where: Path | str) -> BinaryIO:
    """The decompressed bytes of a file of text."""
    if isinstance(where, Path):
        return open_binary(where)
    stream = decompressed(io.BufferedReader(_open_plain(name)))  # type: ignore[type-var]
    refuse_formats(where, peek(stream), text=True)
    return stream


def _arrow(stream: BinaryIO) -> Iterator[pa.RecordBatch]:
    start = stream.read(6)
    stream.seek(0)
    if start == b"ARROW1":
        file = pa.ipc.open_file(stream)
        yield from (file.get_batch(number) for number in range(file.num_record_batches))
    else:
        yield from pa.ipc.open_stream(stream)


def _csv(name: str, where: Path | str, separator: str) -> Iterator[pa.RecordBatch]:
    # Arrow's reader would take a quote that is not closed for the rest of the file.
    csv.field_size_limit(LONGEST_LINE_BYTES)
    with _open(name, where) as stream, io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
        reader = csv.reader(text, delimiter=separator, strict=True)
        header = next(reader, [])
        if len(set(header)) < len(header) or not any(header):
            raise InputError("bad header", where=where, expected="names of columns, each once", found=", ".join(header))
        rows = filter(None, reader)
        while chunk := list(islice(rows, ROWS_PER_BATCH)):
            if any(len(row) != len(header) for row in chunk):
                wrong = next(row for row in chunk if len(row) != len(header))
                expected = f"{len(header)} fields ({', '.join(header)})"
                raise InputError(
                    f"a row before line {reader.line_num + 1} is malformed",
                    where=where, expected=expected, found=repr(wrong)[:200],
                )  # fmt: skip
            yield pa.RecordBatch.from_arrays(
                [pa.array(column, pa.string()) for column in zip(*chunk, strict=True)], names=header
            )


def _json(name: str, where: Path | str) -> Iterator[pa.RecordBatch]:
    """Objects on lines of their own, or in one array."""
    with _open(name, where) as stream:
        is_array = peek(stream).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
        values: Iterable[Any]
        if is_array:
            try:
                values = json.loads(stream.read(), object_pairs_hook=unique_keys)
            except (ValueError, RecursionError) as error:
                raise InputError("malformed JSON", where=where, found=str(error)) from error
        else:
            values = (value for _, value in read_objects(where, stream))
        rows = iter(values)
        row = 1
        while chunk := list(islice(rows, ROWS_PER_BATCH)):
            for number, value in enumerate(chunk, row):
                if not isinstance(value, dict):
                    raise bad_line(where, number, "a JSON object", value)
            yield _batch(chunk, row, where)
            row += len(chunk)


def _batch(values: list[dict[str, Any]], row: int, where: Path | str) -> pa.RecordBatch:
    names = list(dict.fromkeys(name for value in values for name in value))
    arrays = []
    for name in names:
        column = [value.get(name) for value in values]
        try:
            arrays.append(_array(column))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            what = f"column {name} has values of several kinds, from row {row} on"
            raise InputError(what, where=where, found=str(error)[:200]) from error
    return pa.RecordBatch.from_arrays(arrays, names=names)


def _array(values: list[Any]) -> pa.Array:
    """An array of JSON values; where integers and strings are mixed, or integers too long, all become strings."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {list}:
        flat = _array([item for value in values if value is not None for item in value])
        lengths = [None if value is None else len(value) for value in values]
        offsets: list[int | None] = [0]
        for length in lengths:
            offsets.append((offsets[-1] or 0) + (length or 0))
        nulls = pa.array([length is None for length in lengths])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat, mask=nulls)
    if kinds <= {int, str} and kinds:
        if kinds == {int} and all(value is None or -(1 << 63) <= value < 1 << 63 for value in values):
            return pa.array(values, pa.int64())
        return pa.array([None if value is None else str(value) for value in values], pa.string())
    if kinds == {int, float}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array(values)
