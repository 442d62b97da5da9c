"""Shuffles rows of fixed size globally and in bounded memory, in two passes: over shards, then over parts.

Each row has a 64-bit key, a hash of its ids and a seed. The position of a row depends on its key alone, not on its
shard or on the order of the work. The first pass groups the rows of a shard by the leading bits of their keys. The
second pass reads a range of these groups from every shard and sorts it. A row is one block of a NumPy structured type:
moving 32 bytes touches one cache line, while seven separate columns would touch seven.

Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.storage.atomic_files import atomic_write
from pipeline.storage.location import AnyPath

BUCKET_BITS = 12
BUCKETS = 1 << BUCKET_BITS
_WORD = np.dtype(np.uint64)


def row_type(fields: Sequence[tuple[str, str] | tuple[str, str, int]]) -> np.dtype:
    """A structured type of these fields, padded to whole 8-byte words.

    >>> row_type([("query_id", "i4"), ("score", "f4"), ("rank", "i4")]).itemsize
    16
    """
    bare = np.dtype(list(fields))
    gap = -bare.itemsize % _WORD.itemsize
    return np.dtype([*fields, ("_gap", f"V{gap}")]) if gap else bare


def shuffle_keys(seed: int, *ids: np.ndarray) -> np.ndarray:
    """Keys (N,) uint64 of id columns (N,) int32: SplitMix64's finaliser (Steele et al. 2014) over pairs of columns."""
    keys = np.full(len(ids[0]), np.uint64(seed % 2**64) ^ np.uint64(0x9E3779B97F4A7C15), np.uint64)
    for first in range(0, len(ids), 2):
        pair = [column.astype(np.uint64) for column in ids[first : first + 2]]
        keys ^= pair[0] if len(pair) == 1 else (pair[0] << np.uint64(32)) | pair[1]
        _mix(keys)
    return keys


def _mix(z: np.ndarray) -> None:
    moved = z >> np.uint64(30)
    z ^= moved
    z *= np.uint64(0xBF58476D1CE4E5B9)
    np.right_shift(z, np.uint64(27), out=moved)
    z ^= moved
    z *= np.uint64(0x94D049BB133111EB)
    np.right_shift(z, np.uint64(31), out=moved)
    z ^= moved
    z += np.uint64(0x9E3779B97F4A7C15)


def write_by_bucket(path: AnyPath, rows: np.ndarray, keys: np.ndarray) -> None:
    """Write the rows (N,) of a shard, grouped by the leading bits of their keys (N,), after a table of group starts."""
    buckets = (keys >> np.uint64(64 - BUCKET_BITS)).astype(np.uint16)
    starts = np.zeros(BUCKETS + 1, np.int64)
    np.cumsum(np.bincount(buckets, minlength=BUCKETS), out=starts[1:])
    with path.open("wb") if isinstance(path, Path) else atomic_write(path) as stream:
        starts.tofile(stream)
        _take(rows, np.argsort(buckets, kind="stable")).tofile(stream)


def read_part(paths: Sequence[AnyPath], kind: np.dtype, part: int, parts: int) -> np.ndarray:
    """The rows (N,) of one part from the files of all shards, unsorted.

    Raises:
        OSError: a file ends before the rows that its table lists.
    """
    first, end = (BUCKETS * i // parts for i in (part, part + 1))
    header = (BUCKETS + 1) * 8
    ranges = []
    for path in paths:
        with path.open("rb") as stream:
            stream.seek(first * 8)
            bounds = np.frombuffer(stream.read((end - first + 1) * 8), np.int64)
            ranges.append((int(bounds[0]), int(bounds[-1])))
    rows = np.empty(sum(end - start for start, end in ranges), kind)
    buffer, filled = memoryview(rows.view(np.uint8).data), 0
    for path, (start, end) in zip(paths, ranges, strict=True):
        if end > start:
            with path.open("rb", buffering=0) as stream:
                stream.seek(header + start * kind.itemsize)
                size = (end - start) * kind.itemsize
                if stream.readinto(buffer[filled : filled + size]) != size:
                    raise OSError(f"{path}: shorter than its table says")
                filled += size
    return rows


def in_key_order(rows: np.ndarray, keys: np.ndarray, ids: Sequence[str]) -> np.ndarray:
    """Rows (N,) sorted by key (N,), then by the id fields where keys are equal.

    Sorting numbers is several times faster than sorting indices, so the last bits of each key are replaced by the index
    of its row. Rows whose remaining bits are equal are then sorted again.
    """
    low = np.uint64((1 << max(len(rows) - 1, 0).bit_length()) - 1)
    packed = (keys & ~low) | np.arange(len(rows), dtype=np.uint64)
    packed.sort()
    order = (packed & low).astype(np.int64)
    packed &= ~low
    same = np.flatnonzero(packed[1:] == packed[:-1])  # each with the one after it
    for first, end in _runs(same):
        tied = order[first:end]
        fields = [rows[name][tied] for name in reversed(ids)]
        order[first:end] = tied[np.lexsort([*fields, keys[tied]])]
    return _take(rows, order)


def _runs(same: np.ndarray) -> list[tuple[int, int]]:
    """Ranges [first, end) of equal neighbours, from the positions whose value equals the next."""
    cuts = np.flatnonzero(np.diff(same) > 1) + 1
    return [(int(run[0]), int(run[-1]) + 2) for run in np.split(same, cuts) if len(run)]


def _take(rows: np.ndarray, order: np.ndarray) -> np.ndarray:
    """rows[order], moved as 8-byte words: faster than as structured values."""
    words = rows.view(_WORD).reshape(len(rows), rows.itemsize // _WORD.itemsize)
    return words.take(order, axis=0).reshape(-1).view(rows.dtype)
