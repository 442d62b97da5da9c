"""Reads delimited text files as Arrow batches: UTF-8 without header or quoting, plain or compressed.

A wrong number of fields, invalid UTF-8 and empty files are errors; messages name the file and the line. Memory is
bounded by the block size; no Python code runs per row.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pipeline.errors import InputError
from pipeline.storage.location import AnyPath, StorePath
from pipeline.tables.compression import DAMAGED, HEAD_BYTES, compression_of, decompressed, refuse_formats

# A line must fit into a block.
BLOCK_BYTES = 32 << 20
# A delimiter that does not occur in text files: each line is read as one field.
_NO_DELIMITER = "\x01"

# Names of columns, as headers of published files have them. No id, text, score or rank of a row is written so.
_NAME = re.compile(
    r"_?id|text|title|contents?|url|q0|iter(ation)?|rank|tag|run|grade|rel(evance)?|(bm25_|ce_)?scores?|labels?"
    r"|(query|question|passage|doc|docs|document|corpus|pos|positive|neg|negative)(s|[-_ ]?(id|ids|text|score))?"
    r"|docno|qid|pid|did|docid",
    re.IGNORECASE,
)


def read_tsv(path: AnyPath, columns: list[str], header: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Rows of a tab-separated file as string columns, plus `line` int64 (from 1).

    Args:
        path: the file.
        columns: names of the columns of the result.
        header: the header that the file may have; it is no row.

    Raises:
        InputError: the file is missing, empty, truncated or not UTF-8, a line has not one field per column, or the
            first line is another header.
    """
    batches = _read(path, columns, "\t", f"{len(columns)} tab-separated fields ({', '.join(columns)})")
    yield from _without_header(path, batches, columns, header)


def read_fields(path: AnyPath, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Rows of a file whose fields are separated by runs of tabs or spaces (TREC), plus `line` int64 (from 1).

    Raises:
        InputError: as for `read_tsv`.
    """
    yield from _without_header(path, _fields(path, columns), columns)


def _fields(path: AnyPath, columns: list[str]) -> Iterator[pa.RecordBatch]:
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


def _without_header(
    path: AnyPath, batches: Iterator[pa.RecordBatch], columns: list[str], header: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Drop the header from the rows; a line of names that is not this header is refused, since it is no row either."""
    for number, batch in enumerate(batches):
        if number:
            yield batch
            continue
        first = [batch.column(name)[0].as_py().strip() for name in columns]
        if first == header:
            yield batch.slice(1)
        elif all(_NAME.fullmatch(field) for field in first):
            expected = f"rows ({', '.join(columns)})" + (f", or the header {', '.join(header)}" if header else "")
            todo = "remove the line, and give the columns this order"
            raise InputError("line 1 is a header", where=path, expected=expected, found=", ".join(first), todo=todo)
        else:
            yield batch


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
        _refuse_format(path)
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
    except (pa.ArrowException, *DAMAGED) as error:
        raise _explain(path, error, expected, first_line) from error
    if first_line == 1:
        raise InputError("empty file", where=path, expected=expected)


def _open(path: AnyPath) -> pa.NativeFile:
    """The decompressed bytes. Arrow decompresses what it can, which takes no Python code per block."""
    with path.open("rb") as start:
        head = start.read(HEAD_BYTES)
    compression = compression_of(head)
    if compression == "xz":
        return pa.PythonFile(decompressed(io.BufferedReader(path.open("rb"))), "r")
    if isinstance(path, StorePath):
        return path.filesystem.open_input_stream(path.full, compression=compression)
    return pa.input_stream(str(path), compression=compression)


def _refuse_format(path: AnyPath) -> None:
    """Refuse an archive or a binary file by name.

    Raises:
        InputError: the file is not text.
        OSError, pa.ArrowException: the file cannot be read.
    """
    with _open(path) as stream:
        refuse_formats(path, stream.read(HEAD_BYTES), text=True)


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
