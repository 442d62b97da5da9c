"""What published files call relevant, held against the judgements of the workspace."""

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
    """Count the positives that are not judged; with `add`, stage `qrels/` with them as grade 1.

    A pair that is judged already keeps its grade. Returns how many judgements are added.
    """
    parts = workspace.parts("qrels")
    if parts:
        view_parquet(connection, "qrels", parts)
    else:
        connection.register("qrels", schemas.QRELS.empty_table())
    connection.execute("CREATE TABLE new_positives (query_id INT, passage_id INT)")
    found = 0
    for records in buckets:
        columns = {"query_id": records["query"].copy(), "passage_id": records["passage"].copy()}
        connection.register("positives", pa.table(columns))
        (new,) = single_row(connection, sql("imports/positives_not_judged"))
        found += new
        if add and new:
            connection.execute(sql("imports/positives_new"))
        connection.unregister("positives")
    if not add:
        counts.not_judged += found
        return 0
    if found:
        rows = connection.sql(sql("imports/positives_qrels")).to_arrow_reader(65_536)
        inputs = {"qrels": content_fingerprint(read_footers(parts)), "positives": str(found)}
        recipe = Recipe("qrels", {"source": "published positives"}, inputs)
        write_part(staging / "qrels" / part_name(0), rows, schemas.QRELS, recipe)
    return found
