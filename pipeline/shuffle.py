"""A global shuffle of fixed-size rows in bounded memory: two passes, each over one shard or one part.

Every row has a 64-bit key made from its ids and a seed, so its place depends on nothing else: not on the
shard it came from, nor on who works in which order. The first pass writes a shard's rows by the leading bits
of their keys, the second reads a range of them from every shard and sorts. Rows travel as one block each
(a NumPy structured type), since moving 32 bytes costs a single cache line where seven columns cost seven.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

BUCKET_BITS = 12
BUCKETS = 1 << BUCKET_BITS
_WORD = np.dtype(np.uint64)


def row_type(fields: Sequence[tuple[str, str] | tuple[str, str, int]]) -> np.dtype:
    """A structured type of these fields, filled up to whole 8-byte words."""
    bare = np.dtype(list(fields))
    size = -(-bare.itemsize // _WORD.itemsize) * _WORD.itemsize
    names = list(bare.names or ())
    described = {"names": names, "formats": [bare[name] for name in names], "itemsize": size}
    return np.dtype({**described, "offsets": [bare.fields[name][1] for name in names]})  # type: ignore[index,call-overload]


def shuffle_keys(seed: int, *ids: np.ndarray) -> np.ndarray:
    """Keys (N,) uint64 of id columns (N,) int32: the finaliser of SplitMix64 (Steele et al. 2014) over each two."""
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


def write_by_bucket(path: Path, rows: np.ndarray, keys: np.ndarray) -> None:
    """Write one shard's rows (N,) by the leading bits of their keys, after a table of where each bucket starts."""
    buckets = (keys >> np.uint64(64 - BUCKET_BITS)).astype(np.uint16)
    starts = np.zeros(BUCKETS + 1, np.int64)
    np.cumsum(np.bincount(buckets, minlength=BUCKETS), out=starts[1:])
    with path.open("wb") as stream:
        starts.tofile(stream)
        _take(rows, np.argsort(buckets, kind="stable")).tofile(stream)


def read_part(paths: Sequence[Path], kind: np.dtype, part: int, parts: int) -> np.ndarray:
    """The rows of one part from the files of all shards, in no order yet."""
    first, end = (BUCKETS * i // parts for i in (part, part + 1))
    header = (BUCKETS + 1) * 8
    places = []
    for path in paths:
        with path.open("rb") as stream:
            stream.seek(first * 8)
            bounds = np.frombuffer(stream.read((end - first + 1) * 8), np.int64)
            places.append((int(bounds[0]), int(bounds[-1])))
    rows = np.empty(sum(end - start for start, end in places), kind)
    room, filled = memoryview(rows.view(np.uint8)) if len(rows) else memoryview(b""), 0
    for path, (start, end) in zip(paths, places, strict=True):
        if end > start:
            with path.open("rb", buffering=0) as stream:
                stream.seek(header + start * kind.itemsize)
                size = (end - start) * kind.itemsize
                if stream.readinto(room[filled : filled + size]) != size:  # type: ignore[attr-defined]
                    raise OSError(f"{path}: shorter than its own table says")
                filled += size
    return rows


def in_key_order(rows: np.ndarray, keys: np.ndarray, ids: Sequence[str]) -> np.ndarray:
    """Rows (N,) by key; where two keys are equal, by the id fields."""
    order = np.argsort(keys)
    ordered = keys[order]
    if (ordered[1:] == ordered[:-1]).any():
        order = np.lexsort([*(rows[name] for name in reversed(ids)), keys])
    return _take(rows, order)


def _take(rows: np.ndarray, order: np.ndarray) -> np.ndarray:
    words = rows.view(_WORD).reshape(len(rows), rows.itemsize // _WORD.itemsize)
    return words.take(order, axis=0).reshape(-1).view(rows.dtype)
