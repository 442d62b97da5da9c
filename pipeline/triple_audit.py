"""Read a finished triple set again and check every row against the tables it came from.

Looks at the result alone: splits, judgements, texts, numbers, the threshold where it is on the ensemble's margin,
that no triple stands twice, and that the rows are those of the footer. One part at a time.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import schemas
from pipeline.content import ContentHash
from pipeline.database import DEFAULT_MEMORY_LIMIT, connect, sql, view_parquet
from pipeline.errors import WorkspaceError
from pipeline.row_layouts import Triples, keys
from pipeline.same_texts import same_texts
from pipeline.selection import view_tables
from pipeline.tables import read_part
from pipeline.triples import load_triples
from pipeline.workspace import Workspace


def audit_triples(
    workspace: Workspace, name: str, *, memory_limit: str = DEFAULT_MEMORY_LIMIT, threads: int | None = None
) -> int:
    """How many rows were checked.

    Raises:
        WorkspaceError: some are not what they should be.
    """
    paths, footers = load_triples(workspace, name)
    settings = footers[0].recipe.settings
    values = {key: settings[key] for key in ("split", "pairs", "relevance_level", "threshold")}
    if settings["threshold_on"] != "mean":
        values["threshold"] = None
    with (
        tempfile.TemporaryDirectory() as scratch,
        connect(Path(scratch), memory_limit=memory_limit, threads=threads) as connection,
    ):
        view_tables(connection, workspace, "queries", "qrels")
        view_parquet(connection, "same_texts", [same_texts(connection, workspace)])
        for path, footer in zip(paths, footers, strict=True):
            table, _ = read_part(path, schemas.TRIPLES)
            connection.register("triples", table)
            cursor = connection.execute(sql("triple_audit"), values)
            faults = dict(zip([column[0] for column in cursor.description or ()], cursor.fetchall()[0], strict=True))
            faults["out of their place, or twice"] = _misplaced(table, settings["seed"])
            connection.unregister("triples")
            content = ContentHash(schemas.TRIPLES)
            for batch in table.cast(schemas.TRIPLES).to_batches():
                content.update(batch)
            if content.hexdigest() != footer.content:
                faults["in a file that differs from its footer"] = len(table)
            found = ", ".join(f"{count} {fault}" for fault, count in faults.items() if count)
            if found:
                raise WorkspaceError(
                    "triples that are not as asked", where=path, found=found, todo="remove the set, build it again"
                )
    return sum(footer.rows for footer in footers)


def _misplaced(table: pa.Table, seed: int) -> int:
    """Rows that do not come after the one before; equal rows have equal keys, so they would be neighbours."""
    layout = Triples()
    rows = np.zeros(len(table), layout.kind)
    for name in layout.ids:
        rows[name] = table.column(name).to_numpy()
    places = keys(layout, rows, seed)
    same = np.ones(max(len(rows) - 1, 0), bool)
    for name in layout.ids:
        same &= rows[name][1:] == rows[name][:-1]
    return int((places[1:] < places[:-1]).sum() + same.sum())
