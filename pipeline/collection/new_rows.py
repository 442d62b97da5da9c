"""Streams of new rows for the `passages` table: assigns ids, and divides the rows into parts.

Shapes: N new rows in all batches.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipeline import schemas


def numbered(
    batches: Iterator[pa.RecordBatch], lines: np.ndarray, hashes: np.ndarray, first_id: int
) -> Iterator[pa.RecordBatch]:
    """Yield the new rows among `batches` with passage ids, from `first_id` on, and text hashes.

    `lines` (N,) are the line numbers of the new rows, ascending; `hashes` (N,) uint64 their text hashes.
    """
    for batch in batches:
        if not batch.num_rows:
            continue
        batch_lines = batch.column("line").to_numpy()  # ascending, without blank lines
        start, end = np.searchsorted(lines, [batch_lines[0], batch_lines[-1] + 1])
        positions = np.searchsorted(batch_lines, lines[start:end])
        kept = batch.take(pa.array(positions)) if end - start < batch.num_rows else batch
        ids = np.arange(first_id + start, first_id + end, dtype=np.int32)
        columns = [
            pa.array(ids),
            kept.column("external_id"),
            kept.column("text"),
            pa.array(hashes[start:end], pa.uint64()),
        ]
        yield pa.RecordBatch.from_arrays(columns, names=schemas.PASSAGES.names)


def chunks(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[Iterator[pa.RecordBatch]]:
    """Divide a stream of batches into streams of `rows` rows, the last with fewer; consume each before the next."""
    pending: list[pa.RecordBatch] = []

    def chunk() -> Iterator[pa.RecordBatch]:
        room = rows
        while room:
            batch = pending.pop() if pending else next(batches, None)
            if batch is None:
                return
            if batch.num_rows > room:
                pending.append(batch.slice(room))
                batch = batch.slice(0, room)
            room -= batch.num_rows
            yield batch

    while True:
        if not pending:
            head = next((batch for batch in batches if batch.num_rows), None)
            if head is None:
                return
            pending.append(head)
        yield chunk()
