"""Reads a finished set of triples or lists and checks every row against the tables that it was built from.

Part by part, the checks of each row are: its split, judgements, texts and numbers, every bound that its numbers can
show, its position, and that it is unique; the rows of a part must have the content fingerprint of the footer. Margins
of single teachers, ranks, limits and missing rows cannot be seen in a row. A few whole shards are therefore filtered
again, and the set must hold exactly their rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from pipeline.collection.selection import view_tables
from pipeline.collection.texts_by_content import same_texts
from pipeline.errors import WorkspaceError
from pipeline.storage.atomic_files import write_json
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from pipeline.tables.content import ContentHash
from pipeline.tables.database import connect, sql, view_parquet
from pipeline.tables.parts import content_fingerprint, read_part
from pipeline.tables.provenance import Footer
from pipeline.triples.build import Resources, make_plan, scratch
from pipeline.triples.inputs import current_scored_pairs
from pipeline.triples.layouts import Layout, keys
from pipeline.triples.sets import layout_of, load_set, settings_of
from pipeline.triples.settings import TripleSettings
from pipeline.triples.shard import ShardWorker
from pipeline.triples.shuffle import in_key_order

SHARDS_AGAIN = 4
AUDITED_FILE = "audited.json"
"""Beside the parts of a set that passed its audit: the content that was checked."""
_BOUNDS = ("threshold", "min_score", "max_score", "relative_margin", "max_margin_std")


@dataclass(frozen=True)
class FilteredShard:
    """A pair shard that was filtered again."""

    number: int
    first_query: int
    last_query: int
    rows: np.ndarray  # (N,) of the layout's kind, in the order of their keys


def audit_set(workspace: Workspace, dataset: str, name: str, resources: Resources | None = None) -> int:
    """Check a set, and return the number of its rows. It must be built from today's pairs and scores.

    Raises:
        WorkspaceError: rows are wrong, missing or unexpected.
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
            rows = _checked_rows(connection, path, footer, layout, settings)
            for shard, pieces in zip(again, held, strict=True):
                query = rows["query_id"]
                pieces.append(rows[(query >= shard.first_query) & (query <= shard.last_query)])
    total, where = sum(footer.rows for footer in footers), paths[0].parent
    if total != footers[0].extra["rows"]:
        raise _wrong(dataset, where, total, f"{footers[0].extra['rows']} rows")
    for shard, pieces in zip(again, held, strict=True):
        if not np.array_equal(np.concatenate(pieces), shard.rows):
            expected = f"the {len(shard.rows)} rows that pair shard {shard.number} gives"
            raise _wrong(dataset, where, f"{sum(map(len, pieces))} rows for its queries, not the same ones", expected)
    return total


def audit_once(workspace: Workspace, dataset: str, name: str, resources: Resources | None = None) -> int | None:
    """Check a set unless this was done before, also if the run that built it died before its audit ended.

    Returns:
        The number of rows; None if the set was checked before.

    Raises:
        WorkspaceError: as `audit_set`.
    """
    mark = workspace.current_path(dataset, name) / AUDITED_FILE
    content = content_fingerprint(load_set(workspace, dataset, name)[1])
    if mark.is_file() and json.loads(mark.read_text(encoding="utf-8")).get("content") == content:
        return None
    rows = audit_set(workspace, dataset, name, resources)
    write_json(mark, {"content": content, "rows": rows})
    return rows


def _checked_rows(
    connection: duckdb.DuckDBPyConnection, path: AnyPath, footer: Footer, layout: Layout, settings: TripleSettings
) -> np.ndarray:
    """The rows (N,) of a part, each of which passed the checks that a row alone allows.

    Raises:
        WorkspaceError: some did not; the message counts each fault.
    """
    table, _ = read_part(path, layout.schema)
    faults = _faults(connection, table, settings, layout.dataset)
    rows = layout.unpacked(table)
    faults["out of order, or duplicates"] = _misplaced(layout, rows, settings.seed)
    content = ContentHash(layout.schema)
    for batch in table.cast(layout.schema).to_batches():
        content.update(batch)
    if content.hexdigest() != footer.content:
        faults["in a file that differs from its footer"] = len(table)
    found = ", ".join(f"{count} {fault}" for fault, count in faults.items() if count)
    if found:
        raise _wrong(layout.dataset, path, found)
    return rows


def _wrong(dataset: str, where: AnyPath, found: object, expected: object = None) -> WorkspaceError:
    todo = "remove the set, build it again"
    return WorkspaceError(f"wrong rows in {dataset}", where=where, expected=expected, found=found, todo=todo)


def _faults(
    connection: duckdb.DuckDBPyConnection, table: pa.Table, settings: TripleSettings, dataset: str
) -> dict[str, int]:
    """Fault → number of rows of a part that have it."""
    values = {name: getattr(settings, name) for name in ("split", "pairs", "relevance_level", *_BOUNDS)}
    if settings.threshold_on != "mean":
        values["threshold"] = None
    if settings.anchor != "own":
        values["relative_margin"] = None
    connection.register("part", table)
    view = "FROM part" if dataset == "triples" else sql("triples/audit_lists")
    connection.execute(f"CREATE OR REPLACE TEMP VIEW triples AS {view}")
    cursor = connection.execute(sql("triples/audit_triples"), values)
    return dict(zip([column[0] for column in cursor.description or ()], cursor.fetchall()[0], strict=True))


def _misplaced(layout: Layout, rows: np.ndarray, seed: int) -> int:
    """Number of rows that do not follow the row before; equal rows have equal keys, so they are neighbours."""
    positions = keys(layout, rows, seed)
    same = np.ones(max(len(rows) - 1, 0), bool)
    for name in layout.ids:
        same &= rows[name][1:] == rows[name][:-1]
    return int((positions[1:] < positions[:-1]).sum() + same.sum())


def _filtered_again(
    workspace: Workspace,
    footer: Footer,
    layout: Layout,
    settings: TripleSettings,
    resources: Resources,
    staging: Path,
    spill: Path,
) -> Iterator[FilteredShard]:
    """A few pair shards, evenly spaced among all."""
    scored = current_scored_pairs(workspace, footer.recipe.settings["teachers"])
    plan, _ = make_plan(workspace, scored, settings, layout, resources, staging, spill)
    if plan.ensemble.as_dict() != footer.extra["ensemble"]:
        raise WorkspaceError(
            "an ensemble that is not the one of the settings",
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
            yield FilteredShard(number, extra["first_query"], extra["last_query"], rows)
