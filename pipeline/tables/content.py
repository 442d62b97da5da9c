"""Content fingerprints of table rows: the same rows in the same order give the same digest.

Batches, row groups and compression do not change the digest. Each column is hashed by itself: its values, its lengths
(of strings and lists) and its nulls.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.fingerprint import digest_json, new_hash


class ContentHash:
    """Incremental fingerprint of a table: call `update` with its batches in row order, then `hexdigest`."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._columns = [_ColumnHash(field.type) for field in schema]
        self.rows = 0

    def update(self, batch: pa.RecordBatch) -> None:
        """Add the batch's rows."""
        for column, array in zip(self._columns, batch.columns, strict=True):
            column.update(array)
        self.rows += batch.num_rows

    def hexdigest(self) -> str:
        """Digest of column names, types and all rows so far."""
        return digest_json(
            [
                self.rows,
                *([f.name, str(f.type), c.hexdigest()] for f, c in zip(self._schema, self._columns, strict=True)),
            ]
        )


class _ColumnHash:
    """Hashes of one column, separate for values, lengths and nulls, which makes them independent of batch borders."""

    def __init__(self, data_type: pa.DataType) -> None:
        self._values, self._lengths, self._nulls = new_hash(), new_hash(), new_hash()
        self._items = _ColumnHash(data_type.value_type) if pa.types.is_list(data_type) else None

    def update(self, array: pa.Array) -> None:
        if array.null_count:
            self._nulls.update(_bytes(array.is_null().to_numpy(zero_copy_only=False)))
            array = pc.fill_null(array, 0)
        else:
            self._nulls.update(bytes(len(array)))
        if self._items is not None:
            self._lengths.update(_bytes(pc.list_value_length(array).to_numpy()))
            self._items.update(array.flatten())
        elif pa.types.is_string(array.type):
            offsets = np.frombuffer(array.buffers()[1], dtype=np.int32)[array.offset : array.offset + len(array) + 1]
            self._lengths.update(_bytes(np.diff(offsets)))
            if len(array):
                self._values.update(memoryview(array.buffers()[2] or b"")[offsets[0] : offsets[-1]])
        else:
            self._values.update(_bytes(array.to_numpy(zero_copy_only=False)))

    def hexdigest(self) -> list[str]:
        digests = [part.hexdigest() for part in (self._values, self._lengths, self._nulls)]
        return digests + (self._items.hexdigest() if self._items is not None else [])


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def hash_arrays(*arrays: np.ndarray) -> str:
    """Digest of the types, shapes and values of NumPy arrays."""
    digest = new_hash()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(_bytes(array))
    return digest.hexdigest()
