"""Compares the positives of published files with the judgements of the workspace, and adds those that are missing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from pipeline import schemas
from pipeline.imports.intake import Counts
from pipeline.storage.workspace import Workspace
from pipeline.tables.database import single_row, sql, view_parquet
from pipeline.tables.parts import content_fingerprint, part_name, read_footers, write_part
from pipeline.tables.provenance import Recipe


def settle_positives(
    workspace: Workspace,
    connection: duckdb.DuckDBPyConnection,
    staging: Path,
    buckets: Iterable[np.ndarray],
    counts: Counts,
    *,
    add: bool,
) -> int:
    """Count the positives without a judgement in `counts`; with `add`, stage them in `qrels/` as grade 1 instead.

    Args:
        buckets: records of positives; buckets are ranges of queries and do not overlap.

    Returns:
        How many judgements are added. A pair that is judged already keeps its grade.
    """
    parts = workspace.parts("qrels")
    if parts:
        view_parquet(connection, "qrels", parts)
    else:
        connection.register("qrels", schemas.QRELS.empty_table())
    connection.execute("CREATE TABLE new_positives (query_id INT, passage_id INT)")
    not_judged = 0
    for records in buckets:
        columns = {"query_id": records["query"].copy(), "passage_id": records["passage"].copy()}
        connection.register("positives", pa.table(columns))
        (new,) = single_row(connection, sql("imports/positives_not_judged"))
        not_judged += new
        if add and new:
            connection.execute(sql("imports/positives_new"))
        connection.unregister("positives")
    if not add:
        counts.not_judged += not_judged
        return 0
    if not_judged:
        rows = connection.sql(sql("imports/positives_qrels")).to_arrow_reader(65_536)
        inputs = {"qrels": content_fingerprint(read_footers(parts)), "positives": str(not_judged)}
        recipe = Recipe("qrels", {"source": "published positives"}, inputs)
        write_part(staging / "qrels" / part_name(0), rows, schemas.QRELS, recipe)
    return not_judged
