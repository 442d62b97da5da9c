"""Reads delimited text files as Arrow batches: UTF-8 without header or quoting, plain or gzipped (.gz).

A wrong number of fields, invalid UTF-8 and empty files are errors; messages name the file and the line. Memory is
bounded by the block size; no Python code runs per row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pipeline.errors import InputError
from pipeline.storage.location import AnyPath, StorePath

# A line must fit into a block.
BLOCK_BYTES = 32 << 20
# A delimiter that does not occur in text files: each line is read as one field.
_NO_DELIMITER = "\x01"


def read_tsv(path: AnyPath, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Rows of a tab-separated file as string columns, plus `line` int64 (from 1).

    Raises:
        InputError: the file is missing, empty, truncated or not UTF-8, or a line has not one field per column.
    """
    yield from _read(path, columns, "\t", f"{len(columns)} tab-separated fields ({', '.join(columns)})")


def read_fields(path: AnyPath, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Rows of a file whose fields are separated by runs of tabs or spaces (TREC), plus `line` int64 (from 1).

    Raises:
        InputError: as for `read_tsv`.
    """
    expected = f"{len(columns)} fields separated by tabs or spaces ({', '.join(columns)})"
    for batch in _read(path, ["text"], _NO_DELIMITER, expected):
        fields = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(batch.column("text")))
        counts = pc.list_value_length(fields).to_numpy()
        wrong = np.flatnonzero(counts != len(columns))
        if len(wrong):
            line, text = (batch.column(name)[int(wrong[0])].as_py() for name in ("line", "text"))
            raise InputError(f"line {line} is malformed", where=path, expected=expected, found=repr(text[:200]))
        flat = fields.flatten()
        arrays = [flat.take(pa.array(np.arange(i, len(flat), len(columns)))) for i in range(len(columns))]
        yield pa.RecordBatch.from_arrays([*arrays, batch.column("line")], names=[*columns, "line"])


def first_line(path: AnyPath) -> str:
    """The first line of a text file.

    Raises:
        InputError: as for `read_tsv`.
    """
    batches = _read(path, ["text"], _NO_DELIMITER, "lines of text")
    return str(next(batches).column("text")[0].as_py())


def _read(path: AnyPath, columns: list[str], delimiter: str, expected: str) -> Iterator[pa.RecordBatch]:
    first_line = 1
    try:
        with _open(path) as stream:
            reader = pa.csv.open_csv(
                stream,
                read_options=pa.csv.ReadOptions(column_names=columns, block_size=BLOCK_BYTES, use_threads=False),
                parse_options=pa.csv.ParseOptions(
                    delimiter=delimiter,
                    quote_char=False,
                    double_quote=False,
                    escape_char=False,
                    ignore_empty_lines=False,
                ),
                convert_options=pa.csv.ConvertOptions(
                    column_types={name: pa.string() for name in columns}, strings_can_be_null=False
                ),
            )
            for batch in reader:
                line = pa.array(np.arange(first_line, first_line + batch.num_rows))
                first_line += batch.num_rows
                yield pa.RecordBatch.from_arrays([*batch.columns, line], names=[*columns, "line"])
    except FileNotFoundError:
        raise InputError("no such file", where=path) from None
    except (pa.ArrowException, OSError, EOFError) as error:
        raise _explain(path, error, expected, first_line) from error
    if first_line == 1:
        raise InputError("empty file", where=path, expected=expected)


def _open(path: AnyPath) -> pa.NativeFile:
    compression = "gzip" if path.suffix == ".gz" else None
    if isinstance(path, StorePath):
        return path.filesystem.open_input_stream(path.full, compression=compression)
    if {".tar", ".tgz", ".zip"}.intersection(path.suffixes) and path.is_file():
        raise InputError("an archive of files, not a text file", where=path, todo="unpack it and name the file inside")
    return pa.input_stream(str(path), compression=compression)


def _explain(path: AnyPath, error: Exception, expected: str, first_line: int) -> InputError:
    text = str(error)
    if "Empty CSV" in text:
        return InputError("empty file", where=path, expected=expected)
    if row := re.search(r"Row #(\d+): (.*)", text):
        return InputError(f"line {row[1]} is malformed", where=path, expected=f"{expected}, UTF-8", found=row[2][:200])
    return InputError(
        f"unreadable at or after line {first_line}",
        where=path,
        expected=f"{expected}, UTF-8",
        found=text[:300],
    )
