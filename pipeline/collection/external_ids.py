"""Maps external ids to row numbers, for many millions of rows in bounded memory.

A canonical integer of up to 18 digits ("0", "17", "-3") is looked up as a number, any other id by the lower 64 bits of
its MD5. 8.8 million passages take 35 MB if their ids are dense numbers (and 106 MB more during construction), otherwise
106 MB. Construction fails if two ids share their 64 bits; an unknown id is mistaken for a known one once in 2e12
look-ups.

Shapes: N rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import MissingError, WorkspaceError
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from pipeline.tables.parquet import metadata_of, open_parquet

UNKNOWN = -1
_CANONICAL = r"^(0|-?[1-9][0-9]{0,17})$"
_BEYOND = 10**18
"""Integers from here on have more than 18 digits and are looked up as strings."""
# Sparser numbers than this are looked up by bisection, since a direct table would be too large.
_SLOTS_PER_ID = 8
TABLE_KEYS = {"queries": "query_id", "passages": "passage_id"}


class ExternalIds:
    """Finds row numbers of `queries` or `passages` by external id.

    Raises:
        WorkspaceError: the table has not been imported, or two ids share 64 bits of their MD5.
    """

    def __init__(self, workspace: Workspace, table: str) -> None:
        parts = workspace.parts(table)
        if not parts:
            raise MissingError(f"no {table} yet", where=workspace.root, todo="import them: prep import --help")
        numbers, others = _read(parts, TABLE_KEYS[table])
        self._find_numbers, self._find_hashes = _finder(*numbers), partial(_bisect, *others)

    def find(self, external: pa.Array) -> np.ndarray:
        """Row numbers (N,) int32 of external ids (N,), integers or strings; UNKNOWN for ids not in the table."""
        if pa.types.is_integer(external.type):
            numbers = external.to_numpy(zero_copy_only=False)
            if not len(numbers) or (int(numbers.min()) > -_BEYOND and int(numbers.max()) < _BEYOND):
                return self._find_numbers(numbers.astype(np.int64))
            external = external.cast(pa.string())
        is_number, numbers, texts = _split(external)
        rows = np.full(len(external), UNKNOWN, np.int32)
        rows[is_number] = self._find_numbers(numbers)
        rows[~is_number] = self._find_hashes(hash_strings(texts))
        return rows


def _read(parts: Sequence[AnyPath], key: str) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """(numbers, their row numbers) and (hashes of other ids, their row numbers), each sorted."""
    rows = sum(metadata_of(part).num_rows for part in parts)
    numbers, number_ids, read = np.empty(rows, np.int64), np.empty(rows, np.int32), 0
    hashes, other_ids = [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
    for part in parts:
        with open_parquet(part) as file:
            for batch in file.iter_batches(columns=[key, "external_id"]):
                ids = batch.column(0).to_numpy()
                is_number, new_numbers, texts = _split(batch.column(1))
                target = slice(read, read := read + len(new_numbers))
                numbers[target], number_ids[target] = new_numbers, ids[is_number]
                hashes.append(hash_strings(texts))
                other_ids.append(ids[~is_number])
    others = _sorted(np.concatenate(hashes), np.concatenate(other_ids))
    if (others[0][1:] == others[0][:-1]).any():
        raise WorkspaceError("two ids share 64 bits of their MD5", where=parts[0].parent, todo="rename one of them")
    return _sorted(numbers[:read], number_ids[:read]), others


def _sorted(keys: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if (keys[1:] > keys[:-1]).all():
        return keys, ids
    order = np.argsort(keys, kind="stable")
    return keys[order], ids[order]


def _finder(numbers: np.ndarray, ids: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function from numbers to row numbers: a direct table if they are dense, else bisection."""
    if not len(numbers) or numbers[0] < 0 or numbers[-1] >= _SLOTS_PER_ID * len(numbers):
        return partial(_bisect, numbers, ids)
    # The table replaces the sorted numbers, whose memory is freed.
    table = np.full(numbers[-1] + 1, UNKNOWN, np.int32)
    table[numbers] = ids
    return partial(_look_up, table)


def _look_up(table: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    inside = (wanted >= 0) & (wanted < len(table))
    return np.where(inside, table[np.where(inside, wanted, 0)], UNKNOWN)


def _bisect(keys: np.ndarray, ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    if not len(keys):
        return np.full(len(wanted), UNKNOWN, np.int32)
    positions = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[positions] == wanted, ids[positions], UNKNOWN).astype(np.int32)


def _split(external: pa.Array) -> tuple[np.ndarray, np.ndarray, pa.Array]:
    """A mask (N,) of the strings that are canonical integers; these as int64; the other strings."""
    is_number = pc.match_substring_regex(external, _CANONICAL)
    numbers = external.filter(is_number).cast(pa.int64()).to_numpy()
    return is_number.to_numpy(zero_copy_only=False), numbers, external.filter(pc.invert(is_number))


def hash_strings(texts: pa.Array) -> np.ndarray:
    """The lower 64 bits of MD5 over UTF-8, (N,) uint64: the same as DuckDB's `md5_number_lower`.

    >>> hash_strings(pa.array(["text"])).tolist()
    [15121027906282006953]
    """
    digests = b"".join(hashlib.md5(text.encode(), usedforsecurity=False).digest()[8:] for text in texts.to_pylist())
    return np.frombuffer(digests, "<u8").astype(np.uint64)
