"""Moves some queries of a split to a new split, on which settings can be chosen while dev is kept for results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb

from pipeline import schemas
from pipeline.collection.selection import HELD_OUT, held_out_of, require_split, view_tables
from pipeline.errors import InputError, UsageError, WorkspaceError
from pipeline.fingerprint import digest_json
from pipeline.names import check_name
from pipeline.storage.atomic_files import publish_file
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import MANIFEST, Workspace
from pipeline.tables.database import connect, single_row, sql
from pipeline.tables.delimited import read_tsv
from pipeline.tables.parts import part_name, write_part
from pipeline.tables.provenance import Recipe


def hold_out(workspace: Workspace, name: str, split: str, which: int | AnyPath) -> int:
    """Move queries of a split to a new split. Returns their number, or 0 if this was done before.

    Later imports that list the queries under the old split leave them in the new one.

    Args:
        workspace: changed in place.
        name: name of the new split.
        split: name of the split that the queries leave.
        which: number of judged queries, drawn as a stable sample; or a file of external ids, one per line.

    Raises:
        WorkspaceError: nothing is imported, the split is unknown, the new split exists with other queries, or another
            import is running.
        UsageError: the name is invalid, or no query would remain in the split.
        InputError: the file is unreadable or lists ids that are not in the split.
    """
    check_name("split", name)
    count, ids = (which, None) if isinstance(which, int) else _read_ids(which)
    with (
        workspace.exclusive("import"),
        workspace.staging("import") as staging,
        connect(staging / "spill") as database,
    ):
        view_tables(database, workspace, "queries", "qrels")
        manifest = workspace.read_json(MANIFEST)
        held: dict[str, Any] = manifest.get(HELD_OUT, {})
        wanted = {"split": split, "queries": count} | ({} if ids is None else {"ids": digest_json(ids)})
        existing = _count(database, name, judged=False)
        if existing:
            if held.get(name) != wanted:
                found = held.get(name, f"{existing:,} imported queries")
                raise WorkspaceError("the split exists already", where=name, found=found, todo="take another name")
            return 0
        require_split(database, split)
        judged = _count(database, split, judged=ids is None)
        if not 0 < count < judged:
            expected = f"fewer than {judged:,}" + (" judged" if ids is None else "")
            raise UsageError("cannot hold out so many queries", expected=expected, found=count)
        if ids is None:
            database.execute(sql("collection/hold_out_sample"), {"split": split, "count": count})
        else:
            database.execute(sql("collection/hold_out_named"), {"split": split, "ids": ids})
            known = database.sql("SELECT external_id FROM queries WHERE query_id IN (FROM chosen)").fetchall()
            unknown = sorted(set(ids) - {row[0] for row in known})
            if unknown:
                found = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5:,} more" if len(unknown) > 5 else "")
                raise InputError(f"no queries of {split}", where=str(which), found=found)
        # The manifest comes first: an entry for a split without queries has no effect if the run dies here.
        workspace.write_json({**manifest, HELD_OUT: {**held, name: wanted}}, MANIFEST)
        reader = database.sql(sql("collection/hold_out"), params={"name": name, "split": split}).to_arrow_reader(65_536)
        inputs = {"files": digest_json(manifest.get("imports", []))}
        staged = staging / part_name(0)
        write_part(staged, reader, schemas.QUERIES, Recipe("queries", {HELD_OUT: {name: wanted}}, inputs))
        publish_file(staged, workspace.current_path("queries") / staged.name)
    return count


def _read_ids(path: AnyPath) -> tuple[int, list[str]]:
    """The number of distinct ids in a file, and the ids, sorted."""
    ids = sorted({query for batch in read_tsv(path, ["query_id"]) for query in batch.column("query_id").to_pylist()})
    return len(ids), ids


def remove_held_out(database: duckdb.DuckDBPyConnection, manifest: Mapping[str, Any]) -> None:
    """Remove held-out queries from their old split in the table `queries`, to which imported files added them."""
    statement = "UPDATE queries SET splits = list_filter(splits, lambda s: s <> $1) WHERE list_has_any(splits, $2)"
    for split in sorted({what["split"] for what in manifest.get(HELD_OUT, {}).values()}):
        database.execute(statement, [split, held_out_of(manifest, split)])


def _count(database: duckdb.DuckDBPyConnection, split: str, *, judged: bool) -> int:
    query = "SELECT count(*) FROM queries WHERE list_contains(splits, $split)"
    if judged:
        query += " AND query_id IN (SELECT query_id FROM qrels WHERE grade >= 1)"
    return int(single_row(database, query, {"split": split})[0])
