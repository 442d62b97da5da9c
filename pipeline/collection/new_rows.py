"""New rows of the `passages` table: numbered, and cut into parts, as streams.

Shapes: N rows of all batches that are new.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipeline import schemas


def numbered(
    batches: Iterator[pa.RecordBatch], lines: np.ndarray, hashes: np.ndarray, first_id: int
) -> Iterator[pa.RecordBatch]:
    """The new rows with their passage ids and text hashes; `lines` are the new rows' line numbers, ascending."""
    for batch in batches:
        if not batch.num_rows:
            continue
        own = batch.column("line").to_numpy()  # ascending, but blank lines are missing from it
        start, end = np.searchsorted(lines, [own[0], own[-1] + 1])
        places = np.searchsorted(own, lines[start:end])
        kept = batch.take(pa.array(places)) if end - start < batch.num_rows else batch
        ids = np.arange(first_id + start, first_id + end, dtype=np.int32)
        columns = [
            pa.array(ids),
            kept.column("external_id"),
            kept.column("text"),
            pa.array(hashes[start:end], pa.uint64()),
        ]
        yield pa.RecordBatch.from_arrays(columns, names=schemas.PASSAGES.names)


def chunks(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[Iterator[pa.RecordBatch]]:
    """Cut a stream of batches into streams of exactly `rows` rows (the last fewer); consume each before the next."""
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
