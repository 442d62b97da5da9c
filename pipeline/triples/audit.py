"""Read a finished set of triples or lists again and check every row against the tables it came from.

Each row: its split, its judgements, its texts, its numbers, every bound that its own numbers tell, its place, that it
stands once, and that the rows are those of the footer; one part at a time. What no row tells alone (each teacher's
margin, ranks, limits, that nothing is missing) is checked on a few whole shards: they are filtered again, and the set
must hold exactly what comes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from pipeline.collection.same_texts import same_texts
from pipeline.collection.selection import view_tables
from pipeline.errors import WorkspaceError
from pipeline.storage.workspace import Workspace
from pipeline.tables.content import ContentHash
from pipeline.tables.database import connect, sql, view_parquet
from pipeline.tables.parts import read_part
from pipeline.tables.provenance import Footer
from pipeline.triples.build import Resources, make_plan, scratch
from pipeline.triples.inputs import current_scored_pairs
from pipeline.triples.layouts import Layout, keys
from pipeline.triples.sets import layout_of, load_set, settings_of
from pipeline.triples.settings import TripleSettings
from pipeline.triples.shard import ShardWorker
from pipeline.triples.shuffle import in_key_order

SHARDS_AGAIN = 4
_BOUNDS = ("threshold", "min_score", "max_score", "relative_margin", "max_margin_std")


@dataclass(frozen=True)
class Again:
    """A pair shard filtered again."""

    number: int
    first_query: int
    last_query: int
    rows: np.ndarray  # (N,) of the layout's kind, in the order of their keys


def audit_set(workspace: Workspace, dataset: str, name: str, resources: Resources | None = None) -> int:
    """How many rows were checked; the set must be of the workspace's present pairs and scores.

    Raises:
        WorkspaceError: some are not what they should be.
    """
    paths, footers = load_set(workspace, dataset, name)
    layout, settings, resources = layout_of(footers[0]), settings_of(footers[0]), resources or Resources()
    stage = f"audit-{dataset}"
    with (
        workspace.exclusive(stage),
        workspace.staging(stage) as staging,
        scratch(workspace, resources, staging) as spill,
        connect(spill, memory_limit=resources.memory_limit, threads=resources.threads) as connection,
    ):
        view_tables(connection, workspace, "queries", "qrels")
        view_parquet(connection, "same_texts", [same_texts(connection, workspace)])
        again = list(_filtered_again(workspace, footers[0], layout, settings, resources, staging, spill))
        held: list[list[np.ndarray]] = [[] for _ in again]
        for path, footer in zip(paths, footers, strict=True):
            table, _ = read_part(path, layout.schema)
            faults = _faults(connection, table, settings, layout.dataset)
            rows = layout.unpacked(table)
            faults["out of their place, or twice"] = _misplaced(layout, rows, settings.seed)
            content = ContentHash(layout.schema)
            for batch in table.cast(layout.schema).to_batches():
                content.update(batch)
            if content.hexdigest() != footer.content:
                faults["in a file that differs from its footer"] = len(table)
            found = ", ".join(f"{count} {fault}" for fault, count in faults.items() if count)
            if found:
                raise WorkspaceError(
                    f"{dataset} that are not as asked", where=path, found=found, todo="remove the set, build it again"
                )
            for shard, there in zip(again, held, strict=True):
                query = rows["query_id"]
                there.append(rows[(query >= shard.first_query) & (query <= shard.last_query)])
    total = sum(footer.rows for footer in footers)
    if total != footers[0].extra["rows"]:
        raise WorkspaceError(
            f"{dataset} that are not as asked",
            where=paths[0].parent,
            expected=f"{footers[0].extra['rows']} rows",
            found=total,
            todo="remove the set, build it again",
        )
    for shard, there in zip(again, held, strict=True):
        if not np.array_equal(np.concatenate(there), shard.rows):
            raise WorkspaceError(
                f"{dataset} that are not as asked",
                where=paths[0].parent,
                expected=f"the {len(shard.rows)} rows that pair shard {shard.number} gives",
                found=f"{sum(map(len, there))} rows for its queries, not the same ones",
                todo="remove the set, build it again",
            )
    return total


def _faults(
    connection: duckdb.DuckDBPyConnection, table: pa.Table, settings: TripleSettings, dataset: str
) -> dict[str, int]:
    """Fault → rows of a part that have it."""
    values = {name: getattr(settings, name) for name in ("split", "pairs", "relevance_level", *_BOUNDS)}
    if settings.threshold_on != "mean":
        values["threshold"] = None
    if settings.anchor != "own":
        values["relative_margin"] = None
    connection.register("given", table)
    view = "FROM given" if dataset == "triples" else sql("triples/audit_lists")
    connection.execute(f"CREATE OR REPLACE TEMP VIEW triples AS {view}")
    cursor = connection.execute(sql("triples/audit_triples"), values)
    return dict(zip([column[0] for column in cursor.description or ()], cursor.fetchall()[0], strict=True))


def _misplaced(layout: Layout, rows: np.ndarray, seed: int) -> int:
    """Rows that do not come after the one before; equal rows have equal keys, so they would be neighbours."""
    places = keys(layout, rows, seed)
    same = np.ones(max(len(rows) - 1, 0), bool)
    for name in layout.ids:
        same &= rows[name][1:] == rows[name][:-1]
    return int((places[1:] < places[:-1]).sum() + same.sum())


def _filtered_again(
    workspace: Workspace,
    footer: Footer,
    layout: Layout,
    settings: TripleSettings,
    resources: Resources,
    staging: Path,
    spill: Path,
) -> Iterator[Again]:
    """A few pair shards, spread over all."""
    scored = current_scored_pairs(workspace, footer.recipe.settings["teachers"])
    plan, _ = make_plan(workspace, scored, settings, layout, resources, staging, spill)
    if plan.ensemble.as_dict() != footer.extra["ensemble"]:
        raise WorkspaceError(
            "an ensemble that is not the one asked for",
            where=workspace.path(layout.dataset),
            expected=plan.ensemble.as_dict(),
            found=footer.extra["ensemble"],
            todo="remove the set, build it again",
        )
    count = min(SHARDS_AGAIN, len(plan.shards))
    with ShardWorker(plan) as worker:
        for number in sorted({len(plan.shards) * i // count for i in range(count)}):
            worker.load(number)
            worker.measure()
            rows = layout.rows(worker.kept())
            extra = scored.pairs.footers[number].extra
            rows = in_key_order(rows, keys(layout, rows, settings.seed), layout.ids)
            yield Again(number, extra["first_query"], extra["last_query"], rows)
