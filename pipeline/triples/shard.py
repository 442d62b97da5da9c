"""Filters one shard: zips the pair shard with its score files, forms all candidates and finds reasons to drop them.

A worker has its database and takes shards in any order. The result for a shard depends on the shard and the plan alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.collection import texts_by_content
from pipeline.scores.scored_shard import scored_shard
from pipeline.storage.location import AnyPath
from pipeline.tables.database import connect, sql, view_parquet
from pipeline.tables.parquet import read_columns
from pipeline.triples.ensemble import Ensemble, Sample
from pipeline.triples.funnel import OVER_LIMIT, REASONS, Funnel, TripleStatistics
from pipeline.triples.layouts import Layout
from pipeline.triples.settings import TripleSettings

STATEMENTS = {
    "triples/scored": 1,
    "triples/collapse": 1,
    "triples/positives": 1,
    "triples/ring": 1,
    "triples/candidates": 1,
    "triples/take": 2,
    "triples/draw": 2,
    "triples/leave": 2,
    "triples/counts": 1,
    "triples/funnel": 1,
    "triples/kept": 1,
    **texts_by_content.STATEMENTS,
}
"""Statement → its version. Raise it when the statement, or what `ShardWorker` writes into it, gives other rows: sets
that were built before are then stale. Comments, white space and names do not count."""
_BY_POSITIVE = ("triples/take", "triples/draw", "triples/leave")
"""Statements whose first version limited the negatives of a query, their second those of each positive."""

# The passages of a query without a positive share one limit: in the circle each of them has one partner.
_DRAWN_FOR = "CASE WHEN query_id IN (SELECT query_id FROM positives) THEN positive_id ELSE -1 END"
_OUTSIDE = "n.best_rank IS NULL OR n.best_rank < $rank_from::INTEGER OR n.best_rank > $rank_to::INTEGER"


def statement_versions(settings: TripleSettings, single_positives: bool = False) -> dict[str, int]:
    """Statement → the lowest version that gives the rows of these settings.

    Args:
        settings: of a set.
        single_positives: whether no query of the set has two positives.
    """
    if settings.limits_differ_by_positive and not single_positives:
        return dict(STATEMENTS)
    return {name: version - (name in _BY_POSITIVE) for name, version in STATEMENTS.items()}


@dataclass(frozen=True)
class Shard:
    """The files of one shard."""

    pairs: AnyPath
    scores: tuple[AnyPath, ...]
    """Score file of each teacher."""


@dataclass(frozen=True)
class Plan:
    """All that a worker needs; small enough to be sent with every task."""

    shards: tuple[Shard, ...]
    systems: tuple[str, ...]
    ensemble: Ensemble
    settings: TripleSettings
    layout: Layout
    queries: tuple[AnyPath, ...]
    same_texts: AnyPath
    """Passages that share their normalised text: `passage_id`, `text_id`."""
    staging: AnyPath
    """Where the counts of each shard are written; all workers can read it."""
    rows: AnyPath
    """Where rows are kept between the passes; all workers can read it."""
    temp_directory: Path
    """Where databases spill, on the disk of each worker."""
    memory_limit: str
    threads: int | None


class ShardWorker:
    """Holds the tables of one shard at a time: `scored`, then `candidates`.

    Use it as a context manager, and call `load`, then `measure`, then `count` and `kept`.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        # Databases of several processes must not share a directory: they would take each other's files for theirs.
        spill = plan.temp_directory / f"spill-{uuid.uuid4().hex[:12]}"
        spill.parent.mkdir(parents=True, exist_ok=True)  # missing on other machines than the one that made the plan
        self._opened = connect(spill, memory_limit=plan.memory_limit, threads=plan.threads)
        self.connection = self._opened.__enter__()
        self.connection.execute("SET preserve_insertion_order = true")
        view_parquet(self.connection, "queries", plan.queries)
        chosen = "SELECT list_contains(splits, $split) AS chosen FROM queries ORDER BY query_id"
        # Query ids are 0, 1, 2, …: the position of a query is its id.
        self._in_split = self.connection.execute(chosen, {"split": plan.settings.split}).fetchnumpy()["chosen"]
        duplicates = read_columns(plan.same_texts, ["passage_id", "text_id"])
        self._shared = tuple(duplicates.column(name).to_numpy() for name in ("passage_id", "text_id"))

    def __enter__(self) -> ShardWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)

    @property
    def _has_duplicates(self) -> bool:
        return len(self._shared[0]) > 0

    def load(self, number: int, first: int | None = None) -> int:
        """Make the table `scored` of a shard: its pairs with the score of each teacher and their weighted sum.

        Args:
            number: of the shard.
            first: read only that many pairs; None reads all.

        Returns:
            The number of pairs read.

        Raises:
            WorkspaceError: a score file's rows are not those of the pair shard, or a score is not finite.
        """
        shard, settings = self.plan.shards[number], self.plan.settings
        zipped = scored_shard(shard.pairs, shard.scores, first)
        in_split = self._in_split[zipped.column("query_id").to_numpy()]
        zipped = zipped.append_column("in_split", pa.array(in_split))
        if self._has_duplicates:
            zipped = zipped.append_column("text_id", pa.array(self._text_ids(zipped.column("passage_id").to_numpy())))
        self.connection.register("zipped", zipped)
        self._run("scored")
        if settings.collapse_duplicates and self._has_duplicates:
            self._run("collapse")
        return len(zipped)

    def _text_ids(self, passages: np.ndarray) -> np.ndarray:
        """For passages (N,), the lowest id among the passages with the same text (N,)."""
        shared, text_ids = self._shared
        rows = np.minimum(np.searchsorted(shared, passages), len(shared) - 1)
        return np.where(shared[rows] == passages, text_ids[rows], passages)

    def measure(self) -> None:
        """Make the table `candidates` from `scored`: margins, and the first reason to drop each, 0 for none."""
        settings, ensemble = self.plan.settings, self.plan.ensemble
        self._run("positives")
        bounds = ("min_score", "max_score", "rank_from", "rank_to", "relative_margin", "max_margin_std", "threshold")
        values = {name: getattr(settings, name) for name in bounds}
        if not _by_rank(settings):
            del values["rank_from"], values["rank_to"]
        values |= {"divisor": sum(ensemble.weights), "centre": ensemble.centre}
        judged = self._text("candidates", "positives AS p JOIN scored AS n ON p.query_id = n.query_id")
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE candidates AS {judged}", values)
        if settings.pairs == "scored":
            self._run("ring", {"seed": settings.seed})
            matched = "ring AS p JOIN scored AS n ON p.query_id = n.query_id AND n.passage_id = p.partner_id"
            self.connection.execute(f"INSERT INTO candidates {self._text('candidates', matched)}", values)
        self._limit()

    def _limit(self) -> None:
        """Mark the candidates beyond the limits on negatives."""
        settings = self.plan.settings
        if settings.negatives_per_system:
            ids = "query_id INTEGER, positive_id INTEGER, negative_id INTEGER"
            self.connection.execute(f"CREATE OR REPLACE TEMP TABLE taken ({ids})")
            for i in range(len(self.plan.systems)):
                take = self._text("take").replace("/*rank*/", f"rank_{i}")
                self.connection.execute(take, {"limit": settings.negatives_per_system})
            self._run("leave", {"reason": OVER_LIMIT})
        if settings.negatives_per_query:
            drawn = {"limit": settings.negatives_per_query, "strategy": settings.strategy, "seed": settings.seed}
            self._run("draw", drawn)
            self._run("leave", {"reason": OVER_LIMIT})

    def count(self) -> tuple[Funnel, TripleStatistics]:
        """The funnel and the statistics of the shard."""
        rows = self.connection.execute(self._text("counts")).fetchall()
        by_reason = [sum(row[2] for row in rows if row[0] == code) for code in range(len(REASONS) + 1)]
        reasons = dict(zip(REASONS, by_reason[1:], strict=True))
        cursor = self.connection.execute(sql("triples/funnel"))
        names = [column[0] for column in cursor.description or ()]
        (counts,) = cursor.fetchall()
        funnel = Funnel(**dict(zip(names, counts, strict=True)), **reasons, triples=by_reason[0])
        return funnel, TripleStatistics.of_shard(rows, self.plan.systems, self.plan.ensemble.teachers)

    def kept(self) -> Mapping[str, np.ndarray]:
        """The columns (N,) of the shard's triples, in any order of rows."""
        table = self.connection.sql(sql("triples/kept")).to_arrow_table()
        return {name: table.column(name).to_numpy() for name in table.column_names}

    def sample(self, number: int, rows: int) -> Sample:
        """The first scored pairs of the split in a shard, at most `rows`."""
        for first in (2 * rows, None):  # all pairs only if the first ones hold too few of the split
            loaded = self.load(number, first)
            columns = self.connection.execute(
                "SELECT query_id, is_positive, is_negative, COLUMNS('^s_[0-9]+$') FROM scored "
                "WHERE in_split ORDER BY query_id, passage_id LIMIT $rows",
                {"rows": rows},
            ).fetchnumpy()
            if len(columns["query_id"]) == rows or loaded < 2 * rows:
                break
        scores = np.stack([columns[f"s_{i}"] for i in range(len(self.plan.ensemble.teachers))], axis=1)
        return Sample(columns["query_id"], columns["is_positive"], columns["is_negative"], scores.astype(np.float64))

    def has_split(self, number: int, first_query: int, last_query: int) -> bool:
        """Whether a shard, whose query ids are in this range, has pairs of the split."""
        if not self._in_split[first_query : last_query + 1].any():
            return False
        queries = read_columns(self.plan.shards[number].pairs, ["query_id"]).column("query_id").to_numpy()
        return bool(self._in_split[queries].any())

    def held_out(self) -> np.ndarray:
        """Margins (M,) of each positive over every other relevant passage of its query."""
        other = "AND o.text_id <> p.text_id" if self._has_duplicates else ""
        statement = sql("triples/held_out").replace("/*other_text*/", other)
        values = {"divisor": sum(self.plan.ensemble.weights)}
        return np.asarray(self.connection.execute(statement, values).fetchnumpy()["margin"])

    def _run(self, name: str, values: Mapping[str, Any] | None = None) -> None:
        self.connection.execute(self._text(name), dict(values) if values else None)

    def _text(self, name: str, matched: str = "") -> str:
        """A statement whose comments `/*name*/` are replaced by the columns of the plan's teachers and retrievers."""
        text = sql(f"triples/{name}")
        for comment, columns in self._columns(name, matched).items():
            text = text.replace(f"/*{comment}*/", columns)
        return text

    def _columns(self, name: str, matched: str) -> dict[str, str]:
        """Comment in a statement → the SQL that replaces it."""
        settings, ensemble = self.plan.settings, self.plan.ensemble
        teachers, systems = range(len(ensemble.teachers)), range(len(self.plan.systems))
        if name == "scored":
            return _scored_columns(self.plan.systems, ensemble, self._has_duplicates, settings)
        if name in ("positives", "ring"):
            lowest = (
                "min({}) OVER (PARTITION BY query_id)" if settings.anchor == "min" and name == "positives" else "{}"
            )
            prefix = "p." if name == "ring" else ""
            return {
                "anchor_total": lowest.format("total"),
                "text_id": f"{prefix}text_id," if self._has_duplicates else "",
                "scores": ", ".join(f"{prefix}s_{i}" for i in teachers),
                "anchors": ", ".join(f"{lowest.format(f'{prefix}s_{i}')} AS anchor_{i}" for i in teachers),
            }
        if name == "candidates":
            margins = [_over(f"(p.anchor_{i} - n.s_{i})", scale) for i, scale in enumerate(ensemble.scales)]
            bits = [f"if({margin} >= $threshold::DOUBLE, {1 << i}, 0)" for i, margin in enumerate(margins)]
            least = settings.least_agreeing(len(ensemble.teachers))
            same = "(n.query_id, n.text_id) IN (SELECT query_id, text_id FROM positives) OR p.text_id = n.text_id"
            return {
                "squares": _squares(ensemble),
                "ranks": "".join(f"n.rank_{i} AS rank_{i}, " for i in systems),
                "agree": f"({' + '.join(bits)})::{_bits(len(bits))} AS agree",
                "same_text": same if self._has_duplicates else "false",
                "outside_ranks": _OUTSIDE if _by_rank(settings) else "false",
                "too_close": "(p.anchor_total - n.total) / $divisor < $threshold::DOUBLE"
                if least is None
                else f"$threshold::DOUBLE IS NOT NULL AND bit_count(agree) < {least}",
                "matched": matched,
            }
        if name in ("take", "draw"):
            return {"drawn_for": "positive_id" if settings.pairs == "judged" else _DRAWN_FOR}
        if name == "counts":
            return {
                "systems": "".join(f"count(rank_{i}), " for i in systems),
                "teachers": ", ".join(f"count(*) FILTER (agree & {1 << i} <> 0)" for i in teachers),
            }
        return {}


def _scored_columns(
    systems: Sequence[str], ensemble: Ensemble, has_duplicates: bool, settings: TripleSettings
) -> dict[str, str]:
    factors = [weight / scale for weight, scale in zip(ensemble.weights, ensemble.scales, strict=True)]
    ranks = [f'"rank_{system}"' for system in systems]
    return {
        "ranks": "".join(f"{rank} AS rank_{i}, " for i, rank in enumerate(ranks)),
        "best_rank": f"least({', '.join(ranks)})::SMALLINT AS best_rank," if _by_rank(settings) else "",
        "relevance_level": f"{settings.relevance_level:d}",
        "text_id": "text_id," if has_duplicates else "",
        "scores": ", ".join(f"score_{i}::DOUBLE AS s_{i}" for i in range(len(factors))),
        "total": " + ".join(f"s_{i}" if factor == 1 else f"{factor!r} * s_{i}" for i, factor in enumerate(factors)),
    }


def _by_rank(settings: TripleSettings) -> bool:
    return settings.rank_from is not None or settings.rank_to is not None


def _squares(ensemble: Ensemble) -> str:
    """SQL for Σ weight · (scaled margin of a teacher - margin of the ensemble)²."""
    terms = []
    for i, (weight, scale) in enumerate(zip(ensemble.weights, ensemble.scales, strict=True)):
        deviation = f"({_over(f'(p.s_{i} - n.s_{i})', scale)} - margin)"
        terms.append(f"{deviation} * {deviation}" if weight == 1 else f"{weight!r}::DOUBLE * {deviation} * {deviation}")
    return " + ".join(terms)


def _over(margin: str, scale: float) -> str:
    """SQL that divides a margin by a scale; none for a scale of 1, as a division for each candidate takes time."""
    return margin if scale == 1 else f"{margin} / {scale!r}::DOUBLE"


def _bits(teachers: int) -> str:
    """An SQL type with a bit for each teacher."""
    return next(kind for kind, bits in (("TINYINT", 7), ("INTEGER", 31), ("BIGINT", 63)) if teachers <= bits)
