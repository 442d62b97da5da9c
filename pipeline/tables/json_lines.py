"""Reads JSON Lines files, plain or compressed, one value at a time.

A line that is too long, not UTF-8 or not JSON is an error that names its number. Memory is bounded by
`LONGEST_LINE_BYTES`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.errors import InputError
from pipeline.tables.compression import DAMAGED, open_binary

LONGEST_LINE_BYTES = 16 << 20
_CHECKED_LINES = 1000


def read_values(path: Path | str, stream: BinaryIO | None = None) -> Iterator[tuple[int, Any]]:
    """Yield line numbers (from 1) and JSON values; skips blank lines.

    Args:
        path: the file; with `stream`, its name for messages.
        stream: its decompressed bytes, which are not closed.

    Raises:
        InputError: the file is missing, empty or truncated, or a line is malformed.
    """
    line = 0
    with nullcontext(stream) if stream else open_binary(Path(path)) as stream:
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


def read_objects(path: Path | str, stream: BinaryIO | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line numbers and JSON objects, as `read_values`.

    Raises:
        InputError: as `read_values`, or a value is not an object.
    """
    for line, value in read_values(path, stream):
        if not isinstance(value, dict):
            raise bad_line(path, line, "a JSON object", value)
        yield line, value


def bad_line(path: Path | str, line: int, expected: str, found: object) -> InputError:
    """The error for a line whose content is not as expected."""
    return InputError(f"line {line} is malformed", where=path, expected=expected, found=repr(found)[:200])


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, for `json.loads`, which would take the last of several values of a key.

    Raises:
        ValueError: a key appears twice.
    """
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError(f"a key appears twice: {', '.join(key for key, _ in pairs)}")
    return value


def _parse(path: Path | str, line: int, text: bytes) -> Any:
    try:
        # Checking every line would take as long again. Who writes keys twice does so from the start.
        value = json.loads(text, object_pairs_hook=unique_keys if line <= _CHECKED_LINES else None)
        if b"\\ud" in text.lower():
            # Half a surrogate pair is no character and cannot be encoded as UTF-8.
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise bad_line(path, line, "a JSON value in UTF-8", str(error)) from error
