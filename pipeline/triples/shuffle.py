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

from pipeline.storage.atomic_files import atomic_write
from pipeline.storage.location import AnyPath

BUCKET_BITS = 12
BUCKETS = 1 << BUCKET_BITS
_WORD = np.dtype(np.uint64)


def row_type(fields: Sequence[tuple[str, str] | tuple[str, str, int]]) -> np.dtype:
    """A structured type of these fields, filled up to whole 8-byte words."""
    bare = np.dtype(list(fields))
    gap = -bare.itemsize % _WORD.itemsize
    return np.dtype([*fields, ("_gap", f"V{gap}")]) if gap else bare


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


def write_by_bucket(path: AnyPath, rows: np.ndarray, keys: np.ndarray) -> None:
    """Write one shard's rows (N,) by the leading bits of their keys, after a table of where each bucket starts."""
    buckets = (keys >> np.uint64(64 - BUCKET_BITS)).astype(np.uint16)
    starts = np.zeros(BUCKETS + 1, np.int64)
    np.cumsum(np.bincount(buckets, minlength=BUCKETS), out=starts[1:])
    with path.open("wb") if isinstance(path, Path) else atomic_write(path) as stream:
        starts.tofile(stream)
        _take(rows, np.argsort(buckets, kind="stable")).tofile(stream)


def read_part(paths: Sequence[AnyPath], kind: np.dtype, part: int, parts: int) -> np.ndarray:
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
    room, filled = memoryview(rows.view(np.uint8).data), 0
    for path, (start, end) in zip(paths, places, strict=True):
        if end > start:
            with path.open("rb", buffering=0) as stream:
                stream.seek(header + start * kind.itemsize)
                size = (end - start) * kind.itemsize
                if stream.readinto(room[filled : filled + size]) != size:
                    raise OSError(f"{path}: shorter than its own table says")
                filled += size
    return rows


def in_key_order(rows: np.ndarray, keys: np.ndarray, ids: Sequence[str]) -> np.ndarray:
    """Rows (N,) by key; where two keys are equal, by the id fields.

    Sorting numbers is several times faster than sorting places, so each key lends its last bits to its place.
    """
    low = np.uint64((1 << max(len(rows) - 1, 0).bit_length()) - 1)
    packed = (keys & ~low) | np.arange(len(rows), dtype=np.uint64)
    packed.sort()
    order = (packed & low).astype(np.int64)
    packed &= ~low
    same = np.flatnonzero(packed[1:] == packed[:-1])  # each with the one after it
    for first, end in _runs(same):
        places = order[first:end]
        fields = [rows[name][places] for name in reversed(ids)]
        order[first:end] = places[np.lexsort([*fields, keys[places]])]
    return _take(rows, order)


def _runs(same: np.ndarray) -> list[tuple[int, int]]:
    """Stretches of equal neighbours, as [first, end), from the places that equal the next one."""
    cuts = np.flatnonzero(np.diff(same) > 1) + 1
    return [(int(run[0]), int(run[-1]) + 2) for run in np.split(same, cuts) if len(run)]


def _take(rows: np.ndarray, order: np.ndarray) -> np.ndarray:
    words = rows.view(_WORD).reshape(len(rows), rows.itemsize // _WORD.itemsize)
    return words.take(order, axis=0).reshape(-1).view(rows.dtype)
