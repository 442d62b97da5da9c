"""Builds and loads the pair shards, `pairs/part-NNNNN.parquet`: the union of judged and retrieved pairs.

Pairs are unique and sorted by query and passage. All pairs of a query are in one shard, and shards have about the same
number of pairs. Queries that were never mined are left out with their judgements, unless `all_judged` is set: without
candidates they give no triples, and scoring them is wasted. With `only`, the pairs are exactly the lists of one
retriever, and judgements just grade them.

The footer of each shard holds `texts`, the fingerprint of its ids and texts: what the scores of the shard depend on.

Shapes: Q queries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from pipeline import schemas
from pipeline.collection.selection import view_tables
from pipeline.errors import MissingError, StaleError, UsageError, WorkspaceError
from pipeline.names import refuse_case_twins
from pipeline.retrieval.lists import usable_retrieved
from pipeline.scores.settings import PairSettings
from pipeline.settings import command_words
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace, replace_directory
from pipeline.tables.content import hash_arrays
from pipeline.tables.database import DEFAULT_MEMORY_LIMIT, connect, single_row, sql, view_parquet
from pipeline.tables.parts import content_fingerprint, part_name, read_footers, require_complete, write_part
from pipeline.tables.provenance import Footer, Recipe
from pipeline.tables.staleness import refuse_stale, require_current, stale_facts, then

QUERIES_PER_PASS = 50_000
"""Query ids that are counted at a time: bounds the memory."""
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
    """The pair shards of a workspace, complete and of one recipe: paths with their footers, in shard order."""

    paths: list[AnyPath]
    footers: list[Footer]

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return sum(footer.rows for footer in self.footers)

    @property
    def systems(self) -> list[str]:
        """The retrievers, each with a rank column."""
        return list(self.footers[0].recipe.settings["systems"])

    @property
    def content(self) -> str:
        """Content fingerprint of the whole set."""
        return content_fingerprint(self.footers)

    def is_made_by(self, recipe: Recipe) -> bool:
        """Whether the shards are the whole set of a recipe."""
        numbers = [footer.part for footer in self.footers]
        return bool(numbers) and all(
            footer.fingerprint == recipe.fingerprint and numbers == list(range(footer.parts)) for footer in self.footers
        )


@dataclass(frozen=True)
class BuiltPairs:
    """Counts of the pairs that `build_pairs` has built, or that were up to date."""

    pairs: int
    shards: int
    queries: int
    judged: int
    unmined_judgements: int
    """Judged pairs that were left out because their query was never mined."""
    unchanged: bool


def load_pairs(workspace: Workspace) -> PairSet:
    """The pair shards, which must be one complete set.

    Raises:
        WorkspaceError: there are none, or files are missing or mixed.
    """
    return _checked(workspace, _shards(workspace))


def _shards(workspace: Workspace) -> PairSet:
    """The pair shards that are there, complete or not."""
    paths = workspace.parts("pairs")
    return PairSet(paths, read_footers(paths))


def _checked(workspace: Workspace, pairs: PairSet) -> PairSet:
    require_complete("pairs", pairs.paths, pairs.footers, TODO)
    if len({footer.fingerprint for footer in pairs.footers}) > 1:
        raise WorkspaceError("pair shards of two builds are mixed", where=workspace.path("pairs"), todo=TODO)
    return pairs


def is_current(workspace: Workspace, pairs: PairSet) -> bool:
    """Whether `build_pairs` would build the same pairs from the workspace as it is now."""
    try:
        require_current_pairs(Workspace(workspace.root), pairs)
    except StaleError:
        return False
    return True


def current_pairs(workspace: Workspace) -> PairSet:
    """The pair shards, which must be complete and built from today's qrels, texts and retrieved lists.

    Raises:
        WorkspaceError: as `load_pairs`, or `require_current_pairs`.
    """
    pairs = load_pairs(workspace)
    require_current_pairs(workspace, pairs)
    return pairs


def require_current_pairs(workspace: Workspace, pairs: PairSet) -> None:
    """Check that pairs are built from today's qrels, queries, passages and retrieved lists.

    Raises:
        StaleError: something has changed, and the workspace accepts no stale sets.
        WorkspaceError: retrieved lists are incomplete.
    """
    made = pairs.footers[0].recipe
    settings, where = made.settings, workspace.path("pairs")
    todo = _command(settings)
    try:
        now = pairs_recipe(workspace, settings["pairs_per_shard"], settings["all_judged"], settings.get("only"))
    except (MissingError, StaleError) as error:
        refuse_stale(workspace, "the pairs", error.reason, where=where, todo=then(error.todo, todo))
        return
    require_current(workspace, "the pairs", made, now, where=where, todo=f"run: {todo}")


def _command(settings: Mapping[str, Any]) -> str:
    """The command that builds pairs with these settings again."""
    if settings.get("only"):
        return f"prep import scores FILE --teacher {settings['only']} --as-pairs"
    return " ".join(["prep build-pairs", *command_words(PairSettings, settings)])


def pairs_recipe(workspace: Workspace, pairs_per_shard: int, all_judged: bool, only: str | None = None) -> Recipe:
    """The recipe of the pairs that `build_pairs` would build from the workspace as it is now.

    Raises:
        WorkspaceError: nothing was mined, lists are incomplete, or the names of two retrievers differ in case only.
        StaleError: lists are stale.
    """
    names = [only] if only else workspace.names("retrieved")
    systems = [name for name in names if workspace.parts("retrieved", name)]
    if not systems:
        raise MissingError("nothing retrieved yet", where=workspace.root, todo="run: prep mine --system bm25")
    refuse_case_twins("retriever", systems)
    inputs = {
        name: content_fingerprint(read_footers(workspace.parts(name))) for name in ("passages", "queries", "qrels")
    }
    for name in systems:
        inputs[f"retrieved/{name}"] = usable_retrieved(workspace, name).content
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
    """Build the pair shards from qrels and all retrieved lists, unless they are up to date.

    Args:
        workspace: where the tables are, and where the shards go.
        pairs_per_shard: average number of pairs in a shard.
        all_judged: keep the judged pairs of queries that were never mined.
        only: take the pairs of this retriever alone.
        memory_limit: what the database may hold before it spills to disk.
        on_progress: called after each shard with the number of shards done and of all shards.

    Raises:
        UsageError: `pairs_per_shard` is not positive.
        WorkspaceError: nothing was imported or mined, or another build is running.
        StaleError: retrieved lists are stale.
    """
    if pairs_per_shard < 1:
        raise UsageError("--pairs-per-shard must be positive", found=pairs_per_shard)
    with workspace.exclusive("build-pairs"):
        recipe = pairs_recipe(workspace, pairs_per_shard, all_judged, only)
        pairs = _shards(workspace)
        unchanged = pairs.is_made_by(recipe)
        if not unchanged:
            with (
                workspace.staging("build-pairs") as staging,
                connect(staging / "spill", memory_limit=memory_limit) as connection,
            ):
                (staging / "pairs").mkdir()
                _build(workspace, connection, recipe, staging / "pairs", on_progress)
                replace_directory(staging / "pairs", workspace.path("pairs"))
            pairs = _shards(workspace)
        extra = _checked(workspace, pairs).footers[0].extra
        return BuiltPairs(
            pairs.pairs,
            len(pairs.paths),
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
    (left_out,) = single_row(connection, "SELECT count(*) FROM qrels ANTI JOIN mined USING (query_id)")
    extra = {"queries": len(queries), "judged": judged, "unmined_judgements": left_out, **stale_facts(workspace)}
    schema = schemas.pairs(systems)
    ranks = ", ".join(f'min("rank_{system}") AS "rank_{system}"' for system in systems)
    start = 0
    for number, end in enumerate(cuts):
        bounds = {"first": int(queries[start]), "last": int(queries[end - 1])}
        texts = _texts(connection, bounds)
        statement = sql("scores/build_pairs").replace("/*ranks*/", ranks)
        rows = connection.sql(statement, params=bounds).to_arrow_reader(65_536)
        facts = {**extra, "texts": texts, "first_query": bounds["first"], "last_query": bounds["last"]}
        write_part(directory / part_name(number), rows, schema, recipe, part=number, parts=len(cuts), extra=facts)
        on_progress(number + 1, len(cuts))
        start = end


def _candidates_sql(connection: duckdb.DuckDBPyConnection, workspace: Workspace, systems: Sequence[str]) -> str:
    """A query that gives judged and retrieved rows the same columns."""

    def columns(of: str) -> str:
        return ", ".join(f'{"rank" if system == of else "NULL"}::SMALLINT AS "rank_{system}"' for system in systems)

    selects = [f"SELECT query_id, passage_id, grade, true AS judged, {columns('')} FROM judged"]
    for number, system in enumerate(systems):
        view_parquet(connection, f"retrieved_{number}", workspace.parts("retrieved", system))
        selects.append(
            f"SELECT query_id, passage_id, NULL::TINYINT AS grade, false AS judged, {columns(system)} "
            f"FROM retrieved_{number}"
        )
    return " UNION ALL ".join(selects)


def _count(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Query ids (Q,) ascending, the number of pairs of each (Q,), and the number of all judged pairs."""
    (last,) = single_row(connection, "SELECT coalesce(max(query_id), -1) FROM mined")
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
    """Fingerprint of the ids and texts of a shard, in row order."""
    columns = connection.execute(sql("scores/pair_texts"), bounds).fetchnumpy()
    return hash_arrays(
        *(np.ascontiguousarray(columns[name]) for name in ("query_id", "passage_id", "query_hash", "passage_hash"))
    )


def shard_ends(counts: np.ndarray, pairs_per_shard: int) -> list[int]:
    """Where shards end, as ascending positions in `counts` (Q,), the number of pairs of each query.

    The number of shards is the total over `pairs_per_shard`, rounded; each ends at the query that brings it nearest
    to an equal share.

    >>> shard_ends(np.array([4, 4, 1, 7]), pairs_per_shard=8)
    [2, 4]
    """
    ends = np.cumsum(counts)
    shards = max(1, round(int(ends[-1]) / pairs_per_shard))
    targets = ends[-1] * np.arange(1, shards + 1) / shards
    right = np.searchsorted(ends, targets)
    left = np.maximum(right - 1, 0)
    nearest = np.where(targets - ends[left] < ends[np.minimum(right, len(ends) - 1)] - targets, left, right)
    return sorted({*(int(i) + 1 for i in nearest[:-1]), len(counts)})
