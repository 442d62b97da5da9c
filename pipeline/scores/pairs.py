"""Judged and retrieved pairs, in shards: `pairs/part-NNNNN.parquet`.

Every pair stands once, sorted by query and passage, all pairs of a query in one shard, shards of about the
same number of pairs. Queries that no retriever has been asked about are left out with their judgements
unless `all_judged` is set: without candidates they give no triples and would only cost scoring. With `only`,
the pairs are those of one retriever's lists and no others; judgements then only grade them.

Each footer carries `texts`, the fingerprint of the shard's ids and texts: what scores depend on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np

from pipeline import schemas
from pipeline.collection.selection import view_tables
from pipeline.errors import UsageError, WorkspaceError
from pipeline.names import refuse_case_twins
from pipeline.retrieval.lists import load_retrieved
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace, replace_directory
from pipeline.tables.content import hash_arrays
from pipeline.tables.database import DEFAULT_MEMORY_LIMIT, connect, one_row, parquet_names, sql, view_parquet
from pipeline.tables.parts import is_made, part_name, require_complete, set_content, set_footers, write_part
from pipeline.tables.provenance import Footer, Recipe

# How many query ids one counting pass takes on: bounds its memory.
QUERIES_PER_PASS = 50_000
TODO = "run: prep build-pairs"
STATEMENTS = {
    "scores/build_pairs": 1,
    "scores/count_pairs": 1,
    "scores/count_listed_pairs": 1,
    "scores/pair_texts": 1,
}
"""Statement → its version. Raise the version when the statement gives other rows: pairs that were built before are
then stale. Comments, white space and names do not count."""


@dataclass(frozen=True)
class PairSet:
    """The pair shards of a workspace, complete and of one recipe."""

    paths: list[AnyPath]
    footers: list[Footer]

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return sum(footer.rows for footer in self.footers)

    @property
    def systems(self) -> list[str]:
        """Retrievers with a rank column."""
        return list(self.footers[0].recipe.settings["systems"])

    @property
    def content(self) -> str:
        """Content fingerprint of the whole set."""
        return set_content(self.footers)


@dataclass(frozen=True)
class BuiltPairs:
    """What `build_pairs` made or found."""

    pairs: int
    shards: int
    queries: int
    judged: int
    unmined_judgements: int
    """Judged pairs left out because no retriever was asked about their query."""
    unchanged: bool


def load_pairs(workspace: Workspace) -> PairSet:
    """The pair shards, checked to be one complete set.

    Raises:
        WorkspaceError: none yet, or files are missing or mixed.
    """
    paths = workspace.parts("pairs")
    footers = set_footers(paths)
    require_complete("pairs", paths, footers, TODO)
    if len({footer.fingerprint for footer in footers}) > 1:
        raise WorkspaceError("pair shards of two builds are mixed", where=workspace.path("pairs"), todo=TODO)
    return PairSet(paths, footers)


def is_current(workspace: Workspace, pairs: PairSet) -> bool:
    """Whether `build_pairs` would make the same from the workspace as it stands."""
    made = pairs.footers[0]
    settings = made.recipe.settings
    recipe = pairs_recipe(workspace, settings["pairs_per_shard"], settings["all_judged"], settings.get("only"))
    return recipe.fingerprint == made.fingerprint


def current_pairs(workspace: Workspace) -> PairSet:
    """The pair shards, checked to be made of the qrels, texts and retrieved lists that are there now.

    Raises:
        WorkspaceError: as `load_pairs`, or the inputs have changed since.
    """
    pairs = load_pairs(workspace)
    if not is_current(workspace, pairs):
        raise WorkspaceError(
            "the pairs are stale: qrels, queries, passages or retrieved lists have changed since they were built",
            where=workspace.path("pairs"),
            todo=TODO,
        )
    return pairs


def pairs_recipe(workspace: Workspace, pairs_per_shard: int, all_judged: bool, only: str | None = None) -> Recipe:
    """What `build_pairs` would make from the workspace as it stands.

    Raises:
        WorkspaceError: nothing was mined, or two retrievers differ in case only.
    """
    known = [only] if only else workspace.names("retrieved")
    systems = [name for name in known if workspace.parts("retrieved", name)]
    if not systems:
        raise WorkspaceError("nothing retrieved yet", where=workspace.root, todo="run: prep mine --system bm25")
    refuse_case_twins("retriever", systems)
    inputs = {name: set_content(set_footers(workspace.parts(name))) for name in ("passages", "queries", "qrels")}
    for name in systems:
        inputs[f"retrieved/{name}"] = load_retrieved(workspace, name, inputs["passages"]).content
    settings = {"systems": systems, "pairs_per_shard": pairs_per_shard, "all_judged": all_judged}
    if only:
        settings["only"] = only
    if max(STATEMENTS.values()) > 1:  # pairs of the first versions record none
        settings["sql"] = dict(STATEMENTS)
    return Recipe("pairs", settings, inputs)


def build_pairs(
    workspace: Workspace,
    pairs_per_shard: int,
    *,
    all_judged: bool = False,
    only: str | None = None,
    memory_limit: str = DEFAULT_MEMORY_LIMIT,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> BuiltPairs:
    """Unite qrels and all retrieved lists into shards; does nothing where they are up to date.

    Raises:
        WorkspaceError: nothing imported or mined, or a build is running.
    """
    if pairs_per_shard < 1:
        raise UsageError("--pairs-per-shard must be positive", found=pairs_per_shard)
    with workspace.exclusive("build-pairs"):
        recipe = pairs_recipe(workspace, pairs_per_shard, all_judged, only)
        unchanged = is_made(workspace.parts("pairs"), recipe)
        if not unchanged:
            with (
                workspace.staging("build-pairs") as staging,
                connect(staging / "spill", memory_limit=memory_limit) as connection,
            ):
                (staging / "pairs").mkdir()
                _build(workspace, connection, recipe, staging / "pairs", on_progress)
                replace_directory(staging / "pairs", workspace.path("pairs"))
        facts = load_pairs(workspace)
        extra = facts.footers[0].extra
        return BuiltPairs(
            facts.pairs,
            len(facts.paths),
            extra["queries"],
            extra["judged"],
            extra["unmined_judgements"],
            unchanged,
        )


def _build(
    workspace: Workspace,
    connection: duckdb.DuckDBPyConnection,
    recipe: Recipe,
    directory: Path,
    on_progress: Callable[[int, int], None],
) -> None:
    view_tables(connection, workspace, "passages", "queries", "qrels")
    systems = recipe.settings["systems"]
    if recipe.settings.get("only"):
        view_parquet(connection, "listed", workspace.parts("retrieved", *systems))
        connection.execute("CREATE TABLE judged AS FROM qrels SEMI JOIN listed USING (query_id, passage_id)")
    else:
        connection.execute("CREATE VIEW judged AS FROM qrels")
    candidates = _candidates_sql(connection, workspace, systems)
    connection.execute(f"CREATE VIEW candidates AS {candidates}")
    connection.execute("CREATE TABLE mined AS SELECT DISTINCT query_id FROM candidates WHERE NOT judged")
    if recipe.settings["all_judged"]:
        connection.execute("INSERT INTO mined SELECT DISTINCT query_id FROM qrels EXCEPT FROM mined")
    queries, counts, judged = _count(
        connection, "scores/count_listed_pairs" if recipe.settings.get("only") else "scores/count_pairs"
    )
    cuts = shard_ends(counts, recipe.settings["pairs_per_shard"])
    (left_out,) = one_row(connection, "SELECT count(*) FROM qrels ANTI JOIN mined USING (query_id)")
    extra = {"queries": len(queries), "judged": judged, "unmined_judgements": left_out}
    schema = schemas.pairs(systems)
    ranks = ", ".join(f'min("rank_{system}") AS "rank_{system}"' for system in systems)
    start = 0
    for number, end in enumerate(cuts):
        bounds = {"first": int(queries[start]), "last": int(queries[end - 1])}
        texts = _texts(connection, bounds)
        table = connection.sql(sql("scores/build_pairs").replace("/*ranks*/", ranks), params=bounds).to_arrow_reader(
            65_536
        )
        facts = {**extra, "texts": texts, "first_query": bounds["first"], "last_query": bounds["last"]}
        write_part(directory / part_name(number), table, schema, recipe, part=number, parts=len(cuts), extra=facts)
        on_progress(number + 1, len(cuts))
        start = end


def _candidates_sql(connection: duckdb.DuckDBPyConnection, workspace: Workspace, systems: Sequence[str]) -> str:
    """Judged and retrieved rows under one set of columns."""

    def columns(own: str) -> str:
        return ", ".join(f'{"rank" if system == own else "NULL"}::SMALLINT AS "rank_{system}"' for system in systems)

    selects = [f"SELECT query_id, passage_id, grade, true AS judged, {columns('')} FROM judged"]
    for system in systems:
        names = parquet_names(connection, workspace.parts("retrieved", system))
        files = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
        selects.append(
            f"SELECT query_id, passage_id, NULL::TINYINT AS grade, false AS judged, {columns(system)} "
            f"FROM read_parquet([{files}])"
        )
    return " UNION ALL ".join(selects)


def _count(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Query ids (Q,) ascending, their numbers of pairs (Q,), and the number of judged pairs."""
    (last,) = one_row(connection, "SELECT coalesce(max(query_id), -1) FROM mined")
    parts = [
        connection.execute(sql(query), {"first": first, "last": first + QUERIES_PER_PASS - 1}).fetchnumpy()
        for first in range(0, last + 1, QUERIES_PER_PASS)
    ]
    if not parts:
        raise WorkspaceError("no candidate was retrieved for any query", todo="check the queries and mine again")
    queries, counts, judged = (
        np.concatenate([part[name] for part in parts]) for name in ("query_id", "pairs", "judged")
    )
    return queries, counts, int(judged.sum())


def _texts(connection: duckdb.DuckDBPyConnection, bounds: dict[str, int]) -> str:
    """Fingerprint of a shard's ids and texts, in row order."""
    found = connection.execute(sql("scores/pair_texts"), bounds).fetchnumpy()
    return hash_arrays(
        *(np.ascontiguousarray(found[name]) for name in ("query_id", "passage_id", "query_hash", "passage_hash"))
    )


def shard_ends(counts: np.ndarray, pairs_per_shard: int) -> list[int]:
    """Ends of shards as positions in `counts` (Q,), the pairs of each query.

    As many shards as the total asks for, each closed at the query that brings it nearest to an equal share.
    """
    ends = np.cumsum(counts)
    shards = max(1, round(int(ends[-1]) / pairs_per_shard))
    targets = ends[-1] * np.arange(1, shards + 1) / shards
    right = np.searchsorted(ends, targets)
    left = np.maximum(right - 1, 0)
    nearest = np.where(targets - ends[left] < ends[np.minimum(right, len(ends) - 1)] - targets, left, right)
    return sorted({*(int(i) + 1 for i in nearest[:-1]), len(counts)})
