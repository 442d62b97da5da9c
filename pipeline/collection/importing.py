"""Imports passages, queries and qrels from tables of strings into a workspace.

Ids are append-only: existing rows keep theirs, and new rows get the next ids in file order. All input is checked before
anything is published. Then passages, queries and qrels are published in this order; running an interrupted import again
completes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from pipeline import schemas
from pipeline.collection.hold_out import remove_held_out
from pipeline.collection.new_rows import chunks, numbered
from pipeline.collection.selection import UNKNOWN, held_out_of
from pipeline.errors import InputError, MissingError, WorkspaceError
from pipeline.fingerprint import digest_json
from pipeline.storage.atomic_files import publish_file
from pipeline.storage.workspace import MANIFEST, Workspace
from pipeline.tables.database import connect, single_row, sql, view_parquet
from pipeline.tables.parts import part_name, read_footers, write_part
from pipeline.tables.provenance import Recipe

PASSAGES_PER_PART = 1 << 20
TABLES = ("passages", "queries", "qrels")
ROWS = "rows"
"""Key of the manifest: the number of rows of each table after the last import."""

# Accepts whole numbers in any notation, such as 1.0; a cast alone would round 1.5.
_GRADE = "if(try_cast(grade AS DOUBLE) = try_cast(grade AS TINYINT), try_cast(grade AS TINYINT), NULL)"


class Rows(NamedTuple):
    """An input table that can be read several times, always with the same rows."""

    where: Path
    """The file, for messages."""
    read: Callable[[], Iterator[pa.RecordBatch]]
    """Yields batches with `line` int64 (from 1) and string columns: external_id, text; or query, passage, grade."""
    content: str
    """Fingerprint of the rows."""


SplitRows = tuple[str, Rows]


@dataclass(frozen=True)
class Imported:
    """Numbers of rows that an import added."""

    passages: int
    queries: int
    qrels: int
    repeated_lines: int
    """Lines of the collection whose id and text were known already."""
    unchanged: bool
    """True if the same files were imported before."""
    unknown_passages: int = 0
    """Judgements of passages that are not in the collection; measures count them as never found."""
    repeated_judgements: int = 0
    """Lines of judgements that were known already."""


def import_tables(
    workspace: Workspace,
    collection: Rows | None,
    queries: Sequence[SplitRows],
    qrels: Sequence[SplitRows],
    source: str = "msmarco",
    *,
    keep_unknown: bool = False,
) -> Imported:
    """Import a collection, queries and qrels; the collection may be None if the workspace has one.

    With `keep_unknown`, judgements of passages that are not in the collection become `unknown_judgements`; otherwise
    they are an error.

    Raises:
        InputError: a line is malformed, an id is unknown, an id has two texts, or a pair has two grades.
        WorkspaceError: there is no collection, or another import is running.
    """
    with workspace.exclusive("import"):
        digest = digest_json(
            [
                collection.content if collection else None,
                [[split, rows.content] for split, rows in queries],
                [[split, rows.content] for split, rows in qrels],
            ]
        )
        manifest = workspace.read_json(MANIFEST)
        wanted = {
            "passages": collection is not None,
            "queries": bool(queries),
            "qrels": bool(qrels),
            UNKNOWN: bool(qrels),
        }
        lost = _lost_tables(workspace, manifest)
        _refuse_renumbering(workspace, manifest, lost, digest)
        is_known = digest in manifest.get("imports", [])
        if is_known and not any(name in lost for name, needed in wanted.items() if needed):
            return Imported(0, 0, 0, 0, unchanged=True)
        with workspace.staging("import") as staging, connect(staging / "spill") as connection:
            run = _Import(workspace, connection, staging, source, digest, manifest)
            run.run(collection, queries, qrels, keep_unknown)
            added = _publish(workspace, connection, staging)
        imports = [*manifest.get("imports", []), *([] if is_known else [digest])]
        workspace.write_json({**manifest, "imports": imports, ROWS: _rows(workspace)}, MANIFEST)
        return added


def _rows(workspace: Workspace) -> dict[str, int]:
    """Number of rows of each table."""
    return {name: sum(footer.rows for footer in read_footers(workspace.parts(name))) for name in (*TABLES, UNKNOWN)}


def _lost_tables(workspace: Workspace, manifest: Mapping[str, Any]) -> list[str]:
    """Tables that have lost files since they were imported.

    Older manifests do not record the number of rows: there a table counts as lost if it is empty.
    """
    if not manifest.get("imports"):
        return []
    recorded, rows = manifest.get(ROWS, {}), _rows(workspace)
    return [name for name in rows if rows[name] < recorded.get(name, int(name != UNKNOWN))]


def _refuse_renumbering(workspace: Workspace, manifest: Mapping[str, Any], lost: Sequence[str], digest: str) -> None:
    """Refuse to fill a table of texts again if its rows might get other ids than judgements and lists have for them.

    The only import of a workspace gives the same ids when it is repeated.

    Raises:
        WorkspaceError: texts are missing, and this import is not the only one that the workspace had; or a part of the
            passages is missing that is not the last.
    """
    numbers = [footer.part for footer in read_footers(workspace.parts("passages"))]
    if numbers != list(range(len(numbers))):
        again = "remove all files of the table and run the same import again"
        raise WorkspaceError(
            "parts of the passages are missing",
            where=workspace.path("passages"),
            expected=f"parts 0 to {numbers[-1]}",
            found=numbers,
            todo=f"restore the files from a copy{', or ' + again if manifest['imports'] == [digest] else ''}",
        )
    texts = [name for name in lost if name not in ("qrels", UNKNOWN)]
    used = bool(workspace.parts("qrels")) or bool(workspace.names("retrieved"))
    if texts and used and manifest["imports"] != [digest]:
        raise WorkspaceError(
            f"files of the table {texts[0]!r} are missing",
            where=workspace.path(texts[0]),
            expected="every row that was imported: ids in judgements and retrieved lists are row numbers of it",
            todo="restore the files from a copy, or import everything into a new workspace",
        )


def _publish(workspace: Workspace, connection: duckdb.DuckDBPyConnection, staging: Path) -> Imported:
    for dataset in (*TABLES, UNKNOWN):
        for staged in sorted(staging.glob(f"{dataset}/*.parquet")):
            publish_file(staged, workspace.current_path(dataset) / staged.name)
    passages, queries, qrels, repeated, unknown, judged_before = single_row(connection, "FROM added")
    return Imported(passages, queries, qrels, repeated, False, unknown, judged_before)


class _Import:
    """Loads the input into DuckDB, checks it, and stages the new files."""

    def __init__(
        self,
        workspace: Workspace,
        connection: duckdb.DuckDBPyConnection,
        staging: Path,
        source: str,
        digest: str,
        manifest: Mapping[str, Any],
    ) -> None:
        self._workspace, self._connection, self._staging = workspace, connection, staging
        self._manifest = manifest
        self._settings = {"source": source}
        self._inputs = {"files": digest}
        connection.execute(
            "CREATE TABLE added AS SELECT 0::BIGINT AS passages, 0::BIGINT AS queries, 0::BIGINT AS qrels, "
            "0::BIGINT AS repeated, 0::BIGINT AS unknown_passages, 0::BIGINT AS repeated_judgements"
        )

    def run(
        self, collection: Rows | None, queries: Sequence[SplitRows], qrels: Sequence[SplitRows], keep_unknown: bool
    ) -> None:
        self._existing("passages", schemas.PASSAGES, ["passage_id", "external_id", "text_hash"])
        self._existing("queries", schemas.QUERIES, schemas.QUERIES.names)
        self._existing("qrels", schemas.QRELS, schemas.QRELS.names)
        self._existing(UNKNOWN, schemas.UNKNOWN_JUDGEMENTS, schemas.UNKNOWN_JUDGEMENTS.names)
        if collection:
            self._passages(collection)
        elif self._workspace.parts("passages"):
            self._connection.execute("CREATE TABLE known_passages AS SELECT external_id, passage_id FROM old_passages")
        else:
            raise MissingError("no passages yet", where=self._workspace.root, todo="give --collection")
        self._queries(queries)
        self._qrels(qrels, keep_unknown)

    def _existing(self, name: str, schema: pa.Schema, columns: list[str]) -> None:
        """Create the table `old_<name>` from the rows of the workspace."""
        parts = self._workspace.parts(name)
        if parts:
            view_parquet(self._connection, f"file_{name}", parts)
        else:
            self._connection.register(f"file_{name}", schema.empty_table())
        self._connection.execute(f"CREATE TABLE old_{name} AS SELECT {', '.join(columns)} FROM file_{name}")

    def _passages(self, rows: Rows) -> None:
        """Read the rows twice: first keys, for the checks; then texts, which go straight to the staged files."""
        self._load("keys", rows.read(), "line, external_id, md5_number_lower(text) AS text_hash")
        self._refuse_conflict(sql("collection/passage_conflict"), rows.where)
        self._connection.execute(sql("collection/new_passages"))
        new = self._connection.execute("SELECT line, text_hash FROM new_passages ORDER BY line").fetchnumpy()
        lines, hashes = new["line"], new["text_hash"]
        self._connection.execute(
            "UPDATE added SET passages = $1, repeated = (SELECT count(*) FROM keys) - $1", [len(lines)]
        )
        first_id = self._scalar("SELECT coalesce(max(passage_id) + 1, 0) FROM old_passages")
        if first_id + len(lines) > np.iinfo(np.int32).max:
            raise InputError("more passages than int32 can number", where=rows.where)
        number = len(self._workspace.parts("passages"))
        recipe = Recipe("passages", self._settings, self._inputs)
        batches = numbered(rows.read(), lines, hashes, first_id)
        for chunk in chunks(batches, PASSAGES_PER_PART):
            write_part(
                self._staging / "passages" / part_name(number),
                chunk,
                schemas.PASSAGES,
                recipe,
                part=number,
                parts=0,
            )
            number += 1

    def _queries(self, files: Sequence[SplitRows]) -> None:
        if not files:
            self._connection.execute("CREATE TABLE queries AS SELECT * FROM old_queries")
            return
        self._connection.execute(
            "CREATE TABLE query_lines (file INT, split VARCHAR, line BIGINT, external_id VARCHAR, text VARCHAR)"
        )
        for number, (split, rows) in enumerate(files):
            self._load("lines", rows.read(), "line, external_id, text")
            self._connection.execute(
                "INSERT INTO query_lines SELECT $1, $2, line, external_id, text FROM lines", [number, split]
            )
            self._refuse_conflict(sql("collection/query_conflict"), rows.where)
        self._connection.execute(sql("collection/queries"))
        remove_held_out(self._connection, self._manifest)
        if self._unchanged("queries"):
            return
        self._connection.execute(
            "UPDATE added SET queries = (SELECT count(*) FROM queries) - (SELECT count(*) FROM old_queries)"
        )
        self._write("queries", schemas.QUERIES, "SELECT * FROM queries ORDER BY query_id")

    def _qrels(self, files: Sequence[SplitRows], keep_unknown: bool) -> None:
        self._connection.execute("CREATE TABLE judgements (query_id INT, passage_id INT, grade TINYINT)")
        self._connection.execute(
            "CREATE TABLE new_unknown_judgements (query_id INT, external_id VARCHAR, grade TINYINT)"
        )
        for split, rows in files:
            self._load("lines", rows.read(), f"line, query, passage, grade, {_GRADE} AS number")
            # Stored qrels have no split: a judgement remains valid when its query is held out.
            held_out = held_out_of(self._manifest, split)
            values: dict[str, Any] = {"split": split, "held_out": held_out, "keep_unknown": keep_unknown}
            self._refuse_conflict(sql("collection/qrels_conflict"), rows.where, **values)
            self._connection.execute(sql("collection/judgements"))
            self._connection.execute(sql("collection/unknown_lines"))
            self._refuse_conflict(sql("collection/nothing_known"), rows.where)
            self._refuse_conflict(sql("collection/grade_conflict"), rows.where)
        self._connection.execute(sql("collection/unknown_judgements"))
        self._connection.execute("CREATE TABLE qrels AS SELECT * FROM old_qrels UNION SELECT * FROM judgements")
        self._connection.execute(sql("collection/judgements_added"))
        if not self._unchanged("qrels"):
            self._write("qrels", schemas.QRELS, "SELECT * FROM qrels ORDER BY query_id, passage_id")
        if not self._unchanged(UNKNOWN):
            self._write(UNKNOWN, schemas.UNKNOWN_JUDGEMENTS, f"FROM {UNKNOWN} ORDER BY query_id, external_id")

    def _load(self, table: str, batches: Iterator[pa.RecordBatch], columns: str) -> None:
        """Stream batches into a table; an InputError of theirs is raised unchanged."""
        first = next(batches)  # its schema is needed
        failure: list[InputError] = []

        def stream() -> Iterator[pa.RecordBatch]:
            yield first
            try:
                yield from batches
            except InputError as error:
                failure.append(error)

        reader = pa.RecordBatchReader.from_batches(first.schema, stream())
        self._connection.register("incoming", reader)
        try:
            self._connection.execute(f"CREATE OR REPLACE TABLE {table} AS SELECT {columns} FROM incoming")
        finally:
            self._connection.unregister("incoming")
        if failure:
            raise failure[0]

    def _refuse_conflict(self, query: str, path: Path, **values: str | list[str] | bool) -> None:
        """Raise InputError for the conflict that the query returns as a row (what, expected, found), if any."""
        for what, expected, found in self._connection.execute(query, values or None).fetchall():
            raise InputError(what, where=path, expected=expected, found=found)

    def _unchanged(self, table: str) -> bool:
        same = f"(SELECT count(*) FROM {table}) = (SELECT count(*) FROM old_{table})"
        return bool(self._scalar(f"SELECT {same} AND NOT EXISTS (FROM {table} EXCEPT FROM old_{table})"))

    def _scalar(self, query: str) -> int:
        return int(single_row(self._connection, query)[0])

    def _write(self, dataset: str, schema: pa.Schema, query: str) -> None:
        reader = self._connection.sql(query).to_arrow_reader(65_536)
        write_part(
            self._staging / dataset / part_name(0),
            reader,
            schema,
            Recipe(dataset, self._settings, self._inputs),
        )
