"""JSON lines from outside, plain or .gz, one object at a time.

A line that is too long, no UTF-8, no JSON or no object is an error with its number. Memory is bounded by the
longest line allowed.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.errors import InputError

LONGEST_LINE_BYTES = 16 << 20
# What reading a damaged .gz raises.
DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)


def open_binary(path: Path) -> BinaryIO | gzip.GzipFile:
    """The bytes of a file, unpacked if its name ends with .gz.

    Raises:
        InputError: no such file.
    """
    if not path.is_file():
        raise InputError("no such file", where=path)
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def read_values(path: Path) -> Iterator[tuple[int, Any]]:
    """Line numbers (from 1) and JSON values; blank lines are skipped.

    Raises:
        InputError: missing, empty, truncated, or a bad line.
    """
    line = 0
    with open_binary(path) as stream:
        try:
            while text := stream.readline(LONGEST_LINE_BYTES + 1):
                line += 1
                if len(text) > LONGEST_LINE_BYTES:
                    limit = f"at most {LONGEST_LINE_BYTES >> 20} MB in a line"
                    raise InputError(f"line {line} is too long", where=path, expected=limit)
                if not text.isspace():
                    yield line, _parse(path, line, text)
        except DAMAGED as error:
            raise InputError(f"unreadable after line {line}", where=path, found=error) from error
    if not line:
        raise InputError("empty file", where=path, expected="JSON lines")


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """As `read_values`, where each value must be an object.

    Raises:
        InputError: as `read_values`, or a line holds another kind of value.
    """
    for line, value in read_values(path):
        if not isinstance(value, dict):
            raise bad_line(path, line, "a JSON object", value)
        yield line, value


def bad_line(path: Path, line: int, expected: str, found: object) -> InputError:
    """What to raise where a line does not hold what it should."""
    return InputError(f"line {line} is malformed", where=path, expected=expected, found=repr(found)[:200])


def _parse(path: Path, line: int, text: bytes) -> Any:
    try:
        value = json.loads(text)
        if b"\\ud" in text.lower():
            # Half a surrogate pair is no character, and nothing could store it.
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise bad_line(path, line, "a JSON value in UTF-8", str(error)) from error
