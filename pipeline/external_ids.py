"""From external ids to row numbers, for many millions of rows in bounded memory.

A canonical integer ("0", "17", "-3") is looked up as a number, any other id by the lower 64 bits of its MD5:
8.8 million passages take 35 MB where ids are dense numbers, 106 MB where they are not. Two other ids that share
64 bits are refused when the map is made; an unknown one is taken for a known one once in 2e12 look-ups.

Shapes: N rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import WorkspaceError
from pipeline.parquet import open_parquet
from pipeline.store import AnyPath
from pipeline.workspace import Workspace

UNKNOWN = -1
_CANONICAL = r"^(0|-?[1-9][0-9]{0,17})$"
# Numbers are looked up directly in a table of up to that many places for each id, and by bisection beyond.
_PLACES_PER_ID = 8
TABLE_KEYS = {"queries": "query_id", "passages": "passage_id"}


class ExternalIds:
    """The ids of `queries` or `passages`."""

    def __init__(self, workspace: Workspace, table: str) -> None:
        parts = workspace.parts(table)
        if not parts:
            raise WorkspaceError(f"no {table} yet", where=workspace.root, todo="import them: prep import --help")
        self._numbers, self._others = _read(parts, TABLE_KEYS[table])
        self._direct = _direct(*self._numbers)

    def find(self, external: pa.Array) -> np.ndarray:
        """Row numbers (N,) int32 of external ids (N,), integers or strings; UNKNOWN for those that are not there."""
        if pa.types.is_integer(external.type):
            return self._find_numbers(external.to_numpy(zero_copy_only=False).astype(np.int64))
        is_number, numbers, texts = _parted(external)
        found = np.full(len(external), UNKNOWN, np.int32)
        found[is_number] = self._find_numbers(numbers)
        found[~is_number] = _bisect(_hashes(texts), *self._others)
        return found

    def _find_numbers(self, numbers: np.ndarray) -> np.ndarray:
        if self._direct is None:
            return _bisect(numbers, *self._numbers)
        inside = (numbers >= 0) & (numbers < len(self._direct))
        return np.where(inside, self._direct[np.where(inside, numbers, 0)], UNKNOWN)


def _read(parts: Sequence[AnyPath], key: str) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """(numbers, their row numbers) and (hashes of other ids, their row numbers), each sorted."""
    numbers, number_ids, hashes, other_ids = [], [], [], []
    for part in parts:
        with open_parquet(part) as file:
            for batch in file.iter_batches(columns=[key, "external_id"]):
                ids = batch.column(0).to_numpy()
                is_number, found, texts = _parted(batch.column(1))
                numbers.append(found)
                number_ids.append(ids[is_number])
                hashes.append(_hashes(texts))
                other_ids.append(ids[~is_number])
    others = _sorted(hashes, other_ids)
    if (others[0][1:] == others[0][:-1]).any():
        raise WorkspaceError("two ids share 64 bits of their MD5", where=parts[0].parent, todo="rename one of them")
    return _sorted(numbers, number_ids), others


def _sorted(keys: list[np.ndarray], ids: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    all_keys, all_ids = np.concatenate(keys), np.concatenate(ids)
    if (all_keys[1:] > all_keys[:-1]).all():
        return all_keys, all_ids
    order = np.argsort(all_keys, kind="stable")
    return all_keys[order], all_ids[order]


def _direct(numbers: np.ndarray, ids: np.ndarray) -> np.ndarray | None:
    if not len(numbers) or numbers[0] < 0 or numbers[-1] >= _PLACES_PER_ID * len(numbers):
        return None
    table = np.full(numbers[-1] + 1, UNKNOWN, np.int32)
    table[numbers] = ids
    return table


def _bisect(wanted: np.ndarray, keys: np.ndarray, ids: np.ndarray) -> np.ndarray:
    if not len(keys):
        return np.full(len(wanted), UNKNOWN, np.int32)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, ids[places], UNKNOWN).astype(np.int32)


def _parted(external: pa.Array) -> tuple[np.ndarray, np.ndarray, pa.Array]:
    """Which of the strings (N,) are canonical integers; these as int64; the others as they are."""
    is_number = pc.match_substring_regex(external, _CANONICAL)
    numbers = external.filter(is_number).cast(pa.int64()).to_numpy()
    return is_number.to_numpy(zero_copy_only=False), numbers, external.filter(pc.invert(is_number))


def _hashes(texts: pa.Array) -> np.ndarray:
    """The lower 64 bits of MD5 over UTF-8 (N,) uint64."""
    digests = b"".join(hashlib.md5(text.encode(), usedforsecurity=False).digest()[8:] for text in texts.to_pylist())
    return np.frombuffer(digests, ">u8").astype(np.uint64)
