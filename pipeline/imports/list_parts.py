"""Writes imported lists in parts: each `imported-NNNNN.parquet` has the lists of 8,192 queries.

Passages are ranked by score, and equal scores by passage id; ranks of the published file are not used.

Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import schemas
from pipeline.errors import InputError
from pipeline.evaluation.runs import MOST_RANKS
from pipeline.imports.intake import POSITIVES, Counts, Intake, reconcile
from pipeline.retrieval.lists import IMPORTED
from pipeline.tables.parts import part_name, write_part
from pipeline.tables.provenance import Recipe


class ListWriter:
    """Stages the parts of all systems, bucket by bucket. A bucket without rows of a system becomes an empty part."""

    def __init__(self, staging: Path, settings: Mapping[str, Any], inputs: Mapping[str, str], reconciled: bool) -> None:
        self._staging, self._settings, self._inputs, self._reconciled = staging, settings, inputs, reconciled
        self.rows: dict[str, int] = {}

    def buckets(self, intake: Intake, names: Mapping[int, str]) -> Iterator[np.ndarray]:
        """Stage the lists of each bucket, and yield its positives (records of POSITIVES)."""
        self.rows = dict.fromkeys(names.values(), 0)
        for part in range(len(intake.edges)):
            for number, system in names.items():
                self._stage(system, part, intake.bucket(part, number), intake)
            yield intake.bucket(part, POSITIVES)

    def _stage(self, system: str, part: int, records: np.ndarray, intake: Intake) -> None:
        kept = reconcile(records, intake.counts) if self._reconciled else _best(records, intake.counts)
        kept, rank = _ranked(kept)
        if len(kept) and rank.max() > MOST_RANKS:
            raise InputError("a list is too long", where=intake.path, expected=f"at most {MOST_RANKS} passages")
        columns = [kept["query"], kept["passage"], rank.astype(np.int16), kept["score"]]
        batch = pa.RecordBatch.from_arrays(
            [pa.array(np.ascontiguousarray(column)) for column in columns], schema=schemas.RETRIEVED
        )
        write_part(
            self._staging / "staged" / system / part_name(part, IMPORTED),
            [batch],
            schemas.RETRIEVED,
            Recipe("retrieved", {"system": system, "split": IMPORTED, **self._settings}, self._inputs),
            part=part,
            parts=len(intake.edges),
            extra={"queries": len(np.unique(kept["query"])), "systems": sorted(self.rows)},
        )
        self.rows[system] += len(kept)


def _best(records: np.ndarray, counts: Counts) -> np.ndarray:
    """The record with the highest score of each pair, from records sorted by query, passage and score."""
    last = np.ones(len(records), bool)
    last[:-1] = (records["query"][1:] != records["query"][:-1]) | (records["passage"][1:] != records["passage"][:-1])
    counts.repeated += int((~last).sum())
    return records[last]


def _ranked(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort records (N,) by query, falling score and passage; return them and their ranks (N,) from 1.

    They must come sorted by query and passage.
    """
    # Read as an integer, a positive float32 sorts as the float does, and a negative float32 the other way round.
    bits = (records["score"] + np.float32(0)).view(np.int32).astype(np.int64)
    ascending = np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
    records = records[np.argsort((records["query"].astype(np.int64) << 32) - ascending, kind="stable")]
    starts = np.flatnonzero(np.diff(records["query"], prepend=-1))
    lengths = np.diff(np.append(starts, len(records)))
    return records, np.arange(len(records)) - np.repeat(starts, lengths) + 1
