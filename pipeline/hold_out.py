"""A part of a split's queries, put aside as a split of its own: for choosing settings, when dev is for results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb

from pipeline import schemas
from pipeline.database import connect, one_row, sql
from pipeline.errors import UsageError, WorkspaceError
from pipeline.fingerprint import digest_json
from pipeline.names import check_name
from pipeline.provenance import Recipe
from pipeline.publishing import move_file
from pipeline.selection import require_split, view_tables
from pipeline.tables import part_name, write_part
from pipeline.workspace import MANIFEST, Workspace

HELD_OUT = "held_out"
"""Under this name the manifest says which splits were taken from which, for imports that follow."""


def hold_out(workspace: Workspace, name: str, split: str, count: int) -> bool:
    """Move `count` judged queries of a split, a stable sample, to a new split; False where that was done before.

    They stay out: an import that names them again leaves them where they are.

    Raises:
        WorkspaceError: nothing imported, no such split, the new one is there already and other, another import is
            running.
        UsageError: not a name, or the split has not more judged queries than that.
    """
    check_name("split", name)
    with (
        workspace.exclusive("import"),
        workspace.staging("import") as staging,
        connect(staging / "spill") as database,
    ):
        view_tables(database, workspace, "queries", "qrels")
        manifest = workspace.read_json(MANIFEST)
        held: dict[str, Any] = manifest.get(HELD_OUT, {})
        wanted = {"split": split, "queries": count}
        there = _count(database, name, judged=False)
        if there:
            if held.get(name) != wanted:
                found = held.get(name, f"{there:,} imported queries")
                raise WorkspaceError("the split is there already", where=name, found=found, todo="take another name")
            return False
        require_split(database, split)
        judged = _count(database, split, judged=True)
        if not 0 < count < judged:
            raise UsageError("cannot hold out so many queries", expected=f"fewer than {judged:,} judged", found=count)
        # First the manifest: what it says of a split that is not there yet does nothing.
        workspace.write_json({**manifest, HELD_OUT: {**held, name: wanted}}, MANIFEST)
        reader = database.sql(sql("hold_out"), params={"name": name, "split": split, "count": count}).to_arrow_reader(
            65_536
        )
        inputs = {"files": digest_json(manifest.get("imports", []))}
        staged = staging / part_name(0)
        write_part(staged, reader, schemas.QUERIES, Recipe("queries", {HELD_OUT: {name: wanted}}, inputs))
        move_file(staged, workspace.place("queries") / staged.name)
    return True


def leave_held_out(database: duckdb.DuckDBPyConnection, manifest: Mapping[str, Any]) -> None:
    """Take what is held out of a split from it again, in the table `queries`, after files named it there."""
    for name, what in manifest.get(HELD_OUT, {}).items():
        statement = (
            "UPDATE queries SET splits = list_filter(splits, lambda one: one <> $1) WHERE list_contains(splits, $2)"
        )
        database.execute(statement, [what["split"], name])


def _count(database: duckdb.DuckDBPyConnection, split: str, *, judged: bool) -> int:
    query = "SELECT count(*) FROM queries WHERE list_contains(splits, $split)"
    if judged:
        query += " AND query_id IN (SELECT query_id FROM qrels WHERE grade >= 1)"
    return int(one_row(database, query, {"split": split})[0])
