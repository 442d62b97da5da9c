"""Oracles for `build-triples`: plain loops over plain rows, and a way to filter without a whole build."""

import hashlib
import math
import re
import statistics
from dataclasses import replace

import duckdb

from pipeline.scores.pairs import build_pairs
from pipeline.triples.build import Resources, TripleSettings, make_plan
from pipeline.triples.inputs import current_scored_pairs
from pipeline.triples.layouts import Triples
from pipeline.triples.shard import ShardWorker
from tests import worlds

IDS = ("query_id", "positive_id", "negative_id")


def read(workspace, name):
    """Rows of a table as dictionaries."""
    found = duckdb.connect().execute(f"SELECT * FROM '{workspace.path(*name.split('/'))}/*.parquet'")
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def draw(seed, use, query, passage):
    """The same 64 bits as DuckDB's md5_number_lower."""
    digest = hashlib.md5(f"{seed} {use} {query} {passage}".encode()).digest()
    return int.from_bytes(digest[8:], "little")


def in_shards_of(workspace, pairs_per_shard, teachers, digits=0):
    """The workspace with its pairs in shards of another size, scored anew."""
    build_pairs(workspace, pairs_per_shard)
    for teacher in teachers:  # World reads whatever is there
        for path in workspace.parts("scores", teacher):
            path.unlink()
    return worlds.scored(workspace, teachers, digits)


class Filters:
    """Filters a workspace of one shard in memory: many times as fast as a build, without shuffle, parts and files."""

    def __init__(self, workspace, directory):
        self._workspace, self._directory, self._plans = workspace, directory, {}

    def __call__(self, settings, teachers=()):
        """{(query, positive, negative): (positive score, negative score, margin, spread)}, funnel and statistics."""
        if tuple(teachers) not in self._plans:
            scored = current_scored_pairs(self._workspace, teachers)
            assert len(scored.pairs.paths) == 1
            resources, directory = Resources(threads=1), self._directory
            plan, _ = make_plan(
                self._workspace, scored, TripleSettings(), Triples(), resources, directory, directory / "spill"
            )
            self._plans[tuple(teachers)] = plan
        assert settings.ensemble == "mean"  # other ensembles are resolved when a plan is made
        with ShardWorker(replace(self._plans[tuple(teachers)], settings=settings)) as worker:
            worker.load(0)
            worker.measure()
            columns = worker.kept()
            rows = zip(*(columns[name].tolist() for name in columns), strict=True)
            kept = {row[:3]: row[3:] for row in rows}
            assert tuple(columns)[:3] == IDS and len(kept) == len(columns["query_id"])
            return kept, *worker.count()


class World:
    """A scored workspace, read once."""

    def __init__(self, workspace, teachers):
        self.splits = {row["query_id"]: row["splits"] for row in read(workspace, "queries")}
        self.texts = {
            row["passage_id"]: re.sub(r"\s+", " ", row["text"]).strip().lower() for row in read(workspace, "passages")
        }
        self.pairs = {}
        for row in read(workspace, "pairs"):
            self.pairs.setdefault(row["query_id"], []).append(row)
        self.scores = {
            teacher: {
                (row["query_id"], row["passage_id"]): row["score"] for row in read(workspace, f"scores/{teacher}")
            }
            for teacher in teachers
        }
        self.systems = sorted(name for name in next(iter(self.pairs.values()))[0] if name.startswith("rank_"))


def triples(world, settings, teachers, weights=None, scales=None, centre=0.0, *, per_query=False):
    """{(query, positive, negative): (positive score, negative score, margin, spread)}."""
    rows = candidates(world, settings, teachers, weights, scales, centre, per_query=per_query)
    return {key: row for key, (reason, row) in rows.items() if reason == "triples"}


def candidates(world, settings, teachers, weights=None, scales=None, centre=0.0, *, per_query=False):
    """{(query, positive, negative): (its count in the funnel, its numbers)}.

    `per_query` limits the negatives of a query instead of those of each positive, as earlier versions did.
    """
    weights, scales = weights or [1.0] * len(teachers), scales or [1.0] * len(teachers)
    found = {}
    for query, pairs in world.pairs.items():
        if settings.split not in world.splits[query]:
            continue
        scores = {
            row["passage_id"]: [
                world.scores[t][query, row["passage_id"]] / s for t, s in zip(teachers, scales, strict=True)
            ]
            for row in pairs
        }
        positives = [row for row in pairs if (row["grade"] or 0) >= settings.relevance_level]
        negatives = [row for row in pairs if (row["grade"] or 0) <= 0]
        if settings.collapse_duplicates:
            positives, negatives = (one_for_each_text(world, rows) for rows in (positives, negatives))
        matched = [(p, n) for p in positives for n in negatives]
        if not positives and settings.pairs == "scored" and len(negatives) > 1:
            circle = sorted(negatives, key=lambda row: draw(settings.seed, "ring", query, row["passage_id"]))
            matched = list(zip(circle, [*circle[1:], circle[0]], strict=True))
        limited = {}
        for p, n in matched:
            reason, numbers = judge(world, settings, scores, positives, p, n, weights, centre)
            key = (query, p["passage_id"], n["passage_id"])
            found[key] = (reason, numbers)
            if reason == "triples":  # queries without a positive have one limit
                limited.setdefault(key[1] if positives and not per_query else None, {})[key] = (numbers[1], n)
        for rows in limited.values():
            chosen = choose(world, settings, query, {key[2]: row for key, row in rows.items()})
            found |= {key: ("over_limit", found[key][1]) for key in rows if key[2] not in chosen}
    return found


def judge(world, settings, scores, positives, p, n, weights, centre):  # noqa: C901 — one rule after the other
    """The first reason to drop a candidate, or "triples"; and its (positive score, negative score, margin, spread)."""

    def total(values):
        return sum(w * v for w, v in zip(weights, values, strict=True))

    def ensemble(values):
        return total(values) / sum(weights)

    positive, negative = scores[p["passage_id"]], scores[n["passage_id"]]
    margins = [a - b for a, b in zip(positive, negative, strict=True)]
    margin = ensemble(margins)
    spread = math.sqrt(ensemble([(m - margin) ** 2 for m in margins]))
    low = ensemble(negative) - centre
    numbers = (ensemble(positive) - centre, low, margin, spread)
    # What the threshold is measured from.
    if settings.anchor == "min" and positives:
        anchor = min(total(scores[row["passage_id"]]) for row in positives)
        anchors = [min(scores[row["passage_id"]][i] for row in positives) for i in range(len(weights))]
    else:
        anchor, anchors = total(positive), positive
    ranks = [n[s] for s in world.systems if n[s] is not None]
    relevant = {world.texts[row["passage_id"]] for row in positives}
    if world.texts[n["passage_id"]] in relevant | {world.texts[p["passage_id"]]}:
        return "same_text", numbers
    if settings.min_score is not None and low < settings.min_score:
        return "below_min_score", numbers
    if settings.max_score is not None and low > settings.max_score:
        return "above_max_score", numbers
    if (settings.rank_from or settings.rank_to) and not ranks:
        return "outside_ranks", numbers
    if ranks and not (settings.rank_from or 1) <= min(ranks) <= (settings.rank_to or min(ranks)):
        return "outside_ranks", numbers
    if settings.threshold is not None:
        votes = sum(a - b >= settings.threshold for a, b in zip(anchors, negative, strict=True))
        least = {"mean": None, "all": len(weights), "any": 1}.get(settings.threshold_on, settings.threshold_on)
        distance = (anchor - total(negative)) / sum(weights)
        if distance < settings.threshold if least is None else votes < int(least):
            return "below_threshold", numbers
    if settings.relative_margin is not None:
        high = anchor / sum(weights) - centre
        if low > high - abs(high) * settings.relative_margin:
            return "within_relative_margin", numbers
    if settings.max_margin_std is not None and spread > settings.max_margin_std:
        return "above_max_margin_std", numbers
    return "triples", numbers


def one_for_each_text(world, rows):
    first = {}
    for row in sorted(rows, key=lambda row: row["passage_id"]):
        first.setdefault(world.texts[row["passage_id"]], row)
    return list(first.values())


def choose(world, settings, query, rows):
    """The negatives that the limits leave of {negative: (score, its pair)}."""
    chosen = set(rows)
    if settings.negatives_per_system:
        chosen = set()
        for system in world.systems:
            ranked = sorted((pair[system], n) for n, (_, pair) in rows.items() if pair[system] is not None)
            chosen |= set([n for _, n in ranked if n not in chosen][: settings.negatives_per_system])
    if settings.negatives_per_query:
        placed = sorted(chosen, key=lambda n: (-rows[n][0], n))
        turns = []
        for place, n in enumerate(placed, 1):
            luck = (draw(settings.seed, "draw", query, n) + 0.5) / 2**64
            weighted = -math.log(luck) * math.log2(1 + place)
            turns.append(({"top": place, "random": luck, "log_random": weighted}[settings.strategy], n))
        chosen = {n for _, n in sorted(turns)[: settings.negatives_per_query]}
    return chosen


def spread(values):
    return statistics.pstdev(values)
