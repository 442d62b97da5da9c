"""Opens files that may be compressed: gzip, bzip2, xz and Zstandard, recognised by their first bytes, never by name.

A compressed file may have several members (as `cat a.gz b.gz` makes), which are read one after the other. A truncated
file, or bytes after the last member that are not compressed, raise one of `DAMAGED`. Archives of several files and
binary formats are refused by name. The standard library alone, but for Zstandard, which Arrow reads.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from pipeline.errors import InputError

DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError)
"""Errors that reading a damaged file raises."""
HEAD_BYTES = 512
"""Bytes that show what a file is: the mark of a tar archive is at byte 257."""
_READ_BYTES = 1 << 20
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")
_OTHERS = {
    b"PK\x03\x04": "a zip archive", b"PK\x05\x06": "a zip archive", b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a rar archive", b"\x04\x22\x4d\x18": "an lz4 file", b"\xff\x06\x00\x00sNaPpY": "a snappy file",
    b"\x1f\x9d": "a file of Unix compress", b"]\x00\x00": "a file of the old lzma format",
    b"ARROW1": "an Arrow file", b"SQLite format 3": "an SQLite database", b"\x89HDF": "an HDF5 file",
    b"\xff\xfe": "text in UTF-16", b"\xfe\xff": "text in UTF-16", b"%PDF": "a PDF file",
}  # fmt: skip
_TEXT_ONLY = {
    b"PAR1": "a Parquet file",
    b"\x80\x02": "a pickle",
    **dict.fromkeys((b"\x80\x03", b"\x80\x04", b"\x80\x05"), "a pickle"),
}


def compression_of(head: bytes) -> str | None:
    """The compression of a file with these first bytes: gzip, bz2, xz or zstd; None if it has none.

    >>> compression_of(gzip.compress(b"text")), compression_of(b"BZhou")
    ('gzip', None)
    """
    name = next((name for mark, name in _COMPRESSED.items() if head.startswith(mark)), None)
    # Three letters alone could begin a text.
    return None if name == "bz2" and not head[4:].startswith(_BZIP2_BLOCKS) else name


def refuse_formats(path: object, head: bytes, *, text: bool) -> None:
    """Refuse a file whose first bytes, after decompression, are those of an archive or of a foreign format.

    Args:
        path: for the message.
        head: the first `HEAD_BYTES` bytes.
        text: whether the file has to be text, so that Parquet files and pickles are refused, too.

    Raises:
        InputError: it is such a file; names the format.
    """
    formats = {**_OTHERS, **(_TEXT_ONLY if text else {})}
    found = next((name for mark, name in formats.items() if head.startswith(mark)), None)
    if head[257:262] == b"ustar":
        found = "a tar archive"
    elif compression_of(head):
        found = f"compressed twice, with {compression_of(head)} inside"
    if found:
        todo = "unpack it, and name the file inside" if "archive" in found or "file of" in found else None
        raise InputError(
            f"it is {found}", where=path, expected="a file, plain or in gzip, bzip2, xz or Zstandard", todo=todo
        )


def open_binary(path: Path, *, text: bool = True) -> BinaryIO:
    """Open a local file for reading its bytes, decompressed.

    Raises:
        InputError: there is no such file, or it is an archive or of a foreign format (`refuse_formats`).
    """
    try:
        plain = path.open("rb", buffering=_READ_BYTES)
    except OSError as error:
        raise InputError("no such file" if not path.exists() else "unreadable", where=path, found=error) from None
    stream = decompressed(plain)
    try:
        refuse_formats(path, peek(stream), text=text)
    except BaseException:
        stream.close()
        raise
    return stream


def decompressed(plain: BinaryIO) -> BinaryIO:
    """A stream of the decompressed bytes of a stream that is at its start and can `peek`; closes with it."""
    compression = compression_of(peek(plain))
    if compression is None:
        return plain
    raw: Any
    if compression == "gzip":
        raw = gzip.GzipFile(fileobj=plain)
    elif compression == "zstd":
        from pyarrow import CompressedInputStream

        raw = CompressedInputStream(plain, "zstd")
    else:
        members: Any = bz2.BZ2Decompressor if compression == "bz2" else lzma.LZMADecompressor
        raw = _Members(plain, members)
    return _Stream(raw, plain)


class _Stream(io.BufferedReader):
    """Decompressed bytes."""

    def __init__(self, raw: Any, plain: BinaryIO) -> None:
        super().__init__(raw, _READ_BYTES)
        self._plain = plain

    def close(self) -> None:
        """Close the compressed file, too."""
        super().close()
        self._plain.close()


def peek(stream: Any) -> bytes:
    """The first bytes ahead in a buffered stream, at most `HEAD_BYTES`, without taking them.

    A stream that is damaged from the start gives none: reading it raises the error.
    """
    try:
        head: bytes = stream.peek(HEAD_BYTES)[:HEAD_BYTES]
    except DAMAGED:
        return b""
    return head


class _Decompressor(Protocol):
    """What `bz2` and `lzma` have in common."""

    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Up to `max_length` bytes."""


class _Members(io.RawIOBase):
    """The members of a bzip2 or xz file as one stream. Unlike `bz2.open`, drops no bytes after the last member."""

    def __init__(self, plain: BinaryIO, make: Callable[[], Any]) -> None:
        self._plain, self._make = plain, make
        self._member: _Decompressor = make()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with decompressed bytes; 0 at the end."""
        while True:
            if self._member.eof:
                # Padding of zeros may follow a member.
                rest = self._member.unused_data.lstrip(b"\0") or self._plain.read(_READ_BYTES).lstrip(b"\0")
                if not rest:
                    return 0
                self._member = self._make()
            else:
                rest = self._plain.read(_READ_BYTES) if self._member.needs_input else b""
                if not rest and self._member.needs_input:
                    raise EOFError("the compressed file ends too early")
            piece = self._member.decompress(rest, len(buffer))
            if piece:
                buffer[: len(piece)] = piece
                return len(piece)
