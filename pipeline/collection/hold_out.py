"""A part of a split's queries, put aside as a split of its own: for choosing settings, when dev is for results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb

from pipeline import schemas
from pipeline.collection.selection import require_split, view_tables
from pipeline.errors import InputError, UsageError, WorkspaceError
from pipeline.fingerprint import digest_json
from pipeline.names import check_name
from pipeline.storage.atomic_files import publish_file
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import MANIFEST, Workspace
from pipeline.tables.database import connect, one_row, sql
from pipeline.tables.delimited import read_tsv
from pipeline.tables.parts import part_name, write_part
from pipeline.tables.provenance import Recipe

HELD_OUT = "held_out"
"""Under this name the manifest says which splits were taken from which, for imports that follow."""


def hold_out(workspace: Workspace, name: str, split: str, which: int | AnyPath) -> int:
    """Move queries of a split to a new split; how many were moved, 0 where that was done before.

    They stay out: an import that names them again leaves them where they are.

    Args:
        workspace: where.
        name: of the new split.
        split: the one that they leave.
        which: so many judged ones, a stable sample; or a file of their external ids, one a line.

    Raises:
        WorkspaceError: nothing imported, no such split, the new one is there already and other, another import is
            running.
        UsageError: not a name, or no query would be left.
        InputError: no file of ids of the split.
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
        there = _count(database, name, judged=False)
        if there:
            if held.get(name) != wanted:
                found = held.get(name, f"{there:,} imported queries")
                raise WorkspaceError("the split is there already", where=name, found=found, todo="take another name")
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
        # First the manifest: what it says of a split that is not there yet does nothing.
        workspace.write_json({**manifest, HELD_OUT: {**held, name: wanted}}, MANIFEST)
        reader = database.sql(sql("collection/hold_out"), params={"name": name, "split": split}).to_arrow_reader(65_536)
        inputs = {"files": digest_json(manifest.get("imports", []))}
        staged = staging / part_name(0)
        write_part(staged, reader, schemas.QUERIES, Recipe("queries", {HELD_OUT: {name: wanted}}, inputs))
        publish_file(staged, workspace.place("queries") / staged.name)
    return count


def _read_ids(path: AnyPath) -> tuple[int, list[str]]:
    """How many, and them: sorted, each once."""
    ids = sorted({one for batch in read_tsv(path, ["query_id"]) for one in batch.column("query_id").to_pylist()})
    return len(ids), ids


def taken_from(manifest: Mapping[str, Any], split: str) -> list[str]:
    """The splits that were held out of one, and out of those again."""
    own = [name for name, what in manifest.get(HELD_OUT, {}).items() if what["split"] == split]
    return own + [name for one in own for name in taken_from(manifest, one)]


def leave_held_out(database: duckdb.DuckDBPyConnection, manifest: Mapping[str, Any]) -> None:
    """Take what is held out of a split from it again, in the table `queries`, after files named it there."""
    statement = "UPDATE queries SET splits = list_filter(splits, lambda one: one <> $1) WHERE list_has_any(splits, $2)"
    for split in sorted({what["split"] for what in manifest.get(HELD_OUT, {}).values()}):
        database.execute(statement, [split, taken_from(manifest, split)])


def _count(database: duckdb.DuckDBPyConnection, split: str, *, judged: bool) -> int:
    query = "SELECT count(*) FROM queries WHERE list_contains(splits, $split)"
    if judged:
        query += " AND query_id IN (SELECT query_id FROM qrels WHERE grade >= 1)"
    return int(one_row(database, query, {"split": split})[0])
