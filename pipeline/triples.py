"""Margin triples from scored pairs: `triples/<name>/part-NNNNN.parquet`, shuffled over all shards.

For each query: every positive with every negative whose ensemble margin reaches the threshold. The
ensemble score is the mean of all named teachers' raw logits (Hofstätter et al. 2020, arXiv 2010.02666,
section 3.3); the threshold keeps negatives scored at least that much below the positive, as
sentence-transformers does on MS MARCO with 3.

Two passes, each bounded by a shard. The first zips a pair shard with its score files, checks every id,
filters, and writes rows with a shuffle key; the second gathers each key range into one part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np

from pipeline import schemas
from pipeline.database import connect, one_row, sql, view_parquet
from pipeline.errors import PrepError, UsageError, WorkspaceError
from pipeline.funnel import Funnel
from pipeline.names import check_name
from pipeline.pairs import PairSet, current_pairs
from pipeline.provenance import Footer, Recipe
from pipeline.scores import ScoreSet, load_scores
from pipeline.selection import require_split, view_tables
from pipeline.tables import is_made, part_name, require_complete, set_content, set_footers, write_part
from pipeline.workspace import Workspace, replace_directory

TRIPLES_PER_PART = 1_000_000
KEY_SPACE = 1 << 64
MARGIN_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
QUANTILE_SAMPLE = 100_000


@dataclass(frozen=True)
class TripleSettings:
    """What decides which triples are built."""

    threshold: float | None = 3.0
    """Least margin, in raw logits of the ensemble; None keeps every negative."""
    negatives_per_query: int | None = None
    """At most that many negatives of a query, drawn by `seed`; None keeps all."""
    seed: int = 0
    """Seed of the draw and of the shuffle."""
    split: str = "train"
    """Queries of this split only."""
    relevance_level: int = 1
    """A pair of this grade or above is a positive; one unjudged or of grade 0 or below is a negative."""

    def __post_init__(self) -> None:
        if self.negatives_per_query is not None and self.negatives_per_query < 1:
            raise UsageError("--negatives-per-query must be positive", found=self.negatives_per_query)
        if self.threshold is not None and not np.isfinite(self.threshold):
            raise UsageError("--threshold must be a number or 'none'", found=self.threshold)
        if self.relevance_level < 1:
            raise UsageError("--relevance-level must be 1 or more", found=self.relevance_level)


@dataclass(frozen=True)
class BuiltTriples:
    """What `build_triples` made or found."""

    name: str
    teachers: list[str]
    funnel: Funnel
    parts: int
    unchanged: bool


def load_triples(workspace: Workspace, name: str) -> tuple[list[Path], list[Footer]]:
    """A complete triple set.

    Raises:
        WorkspaceError: no set of this name, or files are missing or mixed.
    """
    paths = workspace.parts("triples", name)
    if not paths:
        known = ", ".join(workspace.names("triples")) or "none yet"
        raise WorkspaceError(
            f"no triples {name!r}",
            where=workspace.root,
            expected=f"one of: {known}",
            todo="run: prep build-triples",
        )
    footers = set_footers(paths)
    require_complete(f"triples {name!r}", paths, footers, "run: prep build-triples")
    return paths, footers


def triples_recipe(
    workspace: Workspace, pairs: PairSet, scores: Sequence[ScoreSet], settings: TripleSettings
) -> Recipe:
    """What `build_triples` would make: settings, the SQL itself, and the fingerprints of all inputs."""
    inputs = {"pairs": pairs.content, "queries": set_content(set_footers(workspace.parts("queries")))}
    inputs |= {f"scores/{teacher.teacher}": teacher.content for teacher in scores}
    return Recipe(
        "triples",
        {
            "teachers": [teacher.teacher for teacher in scores],
            "ensemble": "mean",
            "anchor": "own",
            "threshold": settings.threshold,
            "negatives_per_query": settings.negatives_per_query,
            "seed": settings.seed,
            "split": settings.split,
            "relevance_level": settings.relevance_level,
            "triples_per_part": TRIPLES_PER_PART,
            "sql": _shard_sql(len(scores)),
        },
        inputs,
    )


def build_triples(
    workspace: Workspace,
    settings: TripleSettings,
    *,
    name: str = "default",
    teachers: Sequence[str] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> BuiltTriples:
    """Build a set of triples from the named teachers (all under `scores/` if none is named).

    Raises:
        WorkspaceError: pairs or a teacher's scores missing, incomplete or stale.
        PrepError: nothing is left; the message shows where it was lost, and the margins' quantiles.
    """
    check_name("triple set", name)
    teachers = sorted(set(teachers or workspace.names("scores")))
    if not teachers:
        raise WorkspaceError(
            "no teacher has scored yet",
            where=workspace.root,
            todo="run: prep score --teacher NAME=CHECKPOINT",
        )
    with workspace.exclusive("build-triples"):
        pairs = current_pairs(workspace)
        scores = [load_scores(workspace, pairs, teacher) for teacher in teachers]
        recipe = triples_recipe(workspace, pairs, scores, settings)
        if is_made(workspace.parts("triples", name), recipe):
            _, footers = load_triples(workspace, name)
            return BuiltTriples(name, teachers, Funnel(**footers[0].extra["funnel"]), len(footers), unchanged=True)
        with workspace.staging("build-triples") as staging, connect(staging / "spill") as connection:
            view_tables(connection, workspace, "queries")
            require_split(connection, settings.split)
            filtered, funnel = _filter_shards(connection, staging, pairs, scores, settings, on_progress)
            if not funnel.triples:
                raise _nothing_left(connection, pairs, scores, settings, funnel)
            parts = _shuffle(connection, filtered, staging / "triples", recipe, funnel)
            replace_directory(staging / "triples", workspace.path("triples", name))
        return BuiltTriples(name, teachers, funnel, parts, unchanged=False)


def _shard_sql(teachers: int) -> str:
    """The statements for one shard with the score columns written out for that many teachers."""
    return "\n".join(
        sql(name).replace("/*scores*/", _list("score_{}", teachers)).replace("/*joins*/", _joins(teachers))
        for name in ("triples_scored", "triples_candidates", "triples_kept")
    )


def _list(form: str, count: int) -> str:
    return ", ".join(form.format(i) for i in range(count))


def _joins(teachers: int) -> str:
    return "\n".join(
        f"POSITIONAL JOIN (SELECT query_id AS query_{i}, passage_id AS passage_{i}, score::DOUBLE AS score_{i} "
        f"FROM scores_{i})"
        for i in range(teachers)
    )


def _load_shard(
    connection: duckdb.DuckDBPyConnection, pairs: Path, scores: Sequence[Path], settings: TripleSettings
) -> None:
    """Make the table `scored` of one shard: the pairs with their ensemble score, every id checked."""
    for view, path in [("pairs", pairs), *((f"scores_{i}", path) for i, path in enumerate(scores))]:
        connection.read_parquet(str(path)).create_view(view, replace=True)
    statement = (
        sql("triples_scored")
        .replace("/*joins*/", _joins(len(scores)))
        .replace("/*scores*/", _list("score_{}", len(scores)))
    )
    same = " AND ".join(f"query_{i} = query_id AND passage_{i} = passage_id" for i in range(len(scores)))
    connection.execute(
        statement.replace("/*aligned*/", same),
        {"split": settings.split, "relevance_level": settings.relevance_level},
    )
    counts = "SELECT count(*) FILTER (aligned IS NOT true), count(*) FILTER (NOT isfinite(score)) FROM scored"
    misplaced, not_finite = one_row(connection, counts)
    if misplaced:
        raise WorkspaceError(
            "score rows are not in the order of the pair shard",
            where=pairs,
            found=f"{misplaced} rows differ",
            todo="remove the teacher's score file of this shard and run prep score again",
        )
    if not_finite:
        raise WorkspaceError(
            "scores that are not finite",
            where=pairs,
            found=f"{not_finite} pairs",
            todo="score the shard again",
        )


def _filter_shards(
    connection: duckdb.DuckDBPyConnection,
    staging: Path,
    pairs: PairSet,
    scores: Sequence[ScoreSet],
    settings: TripleSettings,
    on_progress: Callable[[int, int], None],
) -> tuple[list[Path], Funnel]:
    """Filter shard by shard; files of kept triples sorted by shuffle key, and the funnel."""
    filtered, funnel = [], Funnel()
    for number, path in enumerate(pairs.paths):
        _load_shard(connection, path, [teacher.paths[number] for teacher in scores], settings)
        connection.execute(sql("triples_candidates"))
        connection.execute(
            sql("triples_kept"),
            {"threshold": settings.threshold, "limit": settings.negatives_per_query, "seed": settings.seed},
        )
        funnel += Funnel.of_shard(connection, settings.threshold)
        out = staging / part_name(number, "filtered")
        connection.table("kept").write_parquet(str(out), row_group_size=61_440)
        filtered.append(out)
        on_progress(number + 1, len(pairs.paths))
    return filtered, funnel


def _shuffle(
    connection: duckdb.DuckDBPyConnection,
    filtered: Sequence[Path],
    directory: Path,
    recipe: Recipe,
    funnel: Funnel,
) -> int:
    """Write the parts, each a range of shuffle keys in key order; returns how many."""
    directory.mkdir()
    view_parquet(connection, "filtered", list(filtered))
    parts = -(-funnel.triples // TRIPLES_PER_PART)
    for number in range(parts):
        first, end = (KEY_SPACE * i // parts for i in (number, number + 1))
        rows = connection.sql(sql("triples_part"), params={"first": first, "last": end - 1}).to_arrow_reader(65_536)
        extra = {"funnel": funnel.as_dict()}
        write_part(
            directory / part_name(number),
            rows,
            schemas.TRIPLES,
            recipe,
            part=number,
            parts=parts,
            extra=extra,
        )
    return parts


def _nothing_left(
    connection: duckdb.DuckDBPyConnection,
    pairs: PairSet,
    scores: Sequence[ScoreSet],
    settings: TripleSettings,
    funnel: Funnel,
) -> PrepError:
    if not funnel.candidates:
        return PrepError(
            "no triples: no query of the split has both a positive and a negative",
            expected=f"judged and retrieved pairs for split {settings.split!r}",
            found=f"{funnel.positives} positives, {funnel.negatives} negatives",
            todo="check --split and --relevance-level, and that the split was mined",
        )
    sample = []
    for number, path in enumerate(pairs.paths):
        _load_shard(connection, path, [teacher.paths[number] for teacher in scores], settings)
        connection.execute(sql("triples_candidates"))
        size = max(1, QUANTILE_SAMPLE // len(pairs.paths))
        sample.append(
            connection.execute(f"SELECT margin FROM candidates USING SAMPLE {size} ROWS (reservoir, 0)").fetchnumpy()[
                "margin"
            ]
        )
    quantiles = np.quantile(np.concatenate(sample), MARGIN_QUANTILES)
    shown = ", ".join(f"{q:.0%}: {value:.3g}" for q, value in zip(MARGIN_QUANTILES, quantiles, strict=True))
    return PrepError(
        "the threshold removes every triple",
        expected=f"margins of at least {settings.threshold:g}",
        found=f"{funnel.candidates} margins with quantiles {shown}",
        todo="choose a threshold on this scale (teachers trained through a sigmoid have margins within 1), or none",
    )
