"""Content fingerprint of table rows: the same rows in the same order give the same digest.

Independent of how rows are cut into batches, of compression and of row groups. Columns are hashed apart,
each by its values, its lengths (strings, lists) and its nulls.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.fingerprint import digest_json, new_hash


class ContentHash:
    """Running fingerprint of a table; feed it batches of one schema in row order."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._columns = [_ColumnHash() for _ in schema]
        self.rows = 0

    def update(self, batch: pa.RecordBatch) -> None:
        """Add the batch's rows."""
        for column, array in zip(self._columns, batch.columns, strict=True):
            column.update(array)
        self.rows += batch.num_rows

    def hexdigest(self) -> str:
        """Digest of column names, types and everything fed so far."""
        return digest_json(
            [self.rows, *([f.name, str(f.type), c.hexdigest()] for f, c in zip(self._schema, self._columns, strict=True))]
        )


class _ColumnHash:
    def __init__(self) -> None:
        self._values, self._lengths, self._nulls = new_hash(), new_hash(), new_hash()

    def update(self, array: pa.Array) -> None:
        if array.null_count:
            self._nulls.update(np.ascontiguousarray(array.is_null().to_numpy(zero_copy_only=False)))
            array = pc.fill_null(array, 0)
        else:
            self._nulls.update(bytes(len(array)))
        _feed(array, self._values, self._lengths)

    def hexdigest(self) -> list[str]:
        return [part.hexdigest() for part in (self._values, self._lengths, self._nulls)]


def _feed(array: pa.Array, values: hashlib.blake2b, lengths: hashlib.blake2b) -> None:
    """Hash the values of an array without nulls."""
    if pa.types.is_list(array.type):
        lengths.update(np.ascontiguousarray(pc.list_value_length(array).to_numpy()))
        _feed(array.flatten(), values, lengths)
    elif pa.types.is_string(array.type):
        offsets = np.frombuffer(array.buffers()[1], dtype=np.int32)[array.offset : array.offset + len(array) + 1]
        lengths.update(np.ascontiguousarray(np.diff(offsets)))
        if len(array):
            values.update(memoryview(array.buffers()[2] or b"")[offsets[0] : offsets[-1]])
    else:
        values.update(np.ascontiguousarray(array.to_numpy(zero_copy_only=False)))


def hash_arrays(*arrays: np.ndarray) -> str:
    """Digest of NumPy arrays by type, shape and values."""
    digest = new_hash()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()
