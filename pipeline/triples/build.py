"""Builds margin triples from scored pairs: `triples/<name>/part-NNNNN.parquet`, shuffled over all shards.

For each query, every positive is paired with every negative, and the filters drop candidates: by default those whose
margin, by the ensemble, is below 3, the threshold that sentence-transformers uses for MS MARCO. The filters are in
`pipeline.triples.settings`, the ensemble in `pipeline.triples.ensemble`.

A build has two passes. The first filters shard by shard (`pipeline.triples.shard`), the second gathers part by part
(`pipeline.triples.shuffle`), and memory is bounded by one shard or part. They run in this process, in several, or on a
cluster, as the `Runner` decides: the bytes are the same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.collection.selection import require_split, view_tables
from pipeline.collection.texts_by_content import same_texts
from pipeline.errors import PrepError
from pipeline.fingerprint import digest_json
from pipeline.names import check_name
from pipeline.scores.pairs import PairSet
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace, replace_directory
from pipeline.tables.database import connect, sql
from pipeline.tables.parts import footer_of, is_made
from pipeline.tables.provenance import Footer, Recipe
from pipeline.tables.staleness import stale_facts
from pipeline.triples.ensemble import Ensemble, Sample, resolve
from pipeline.triples.funnel import Funnel, TripleStatistics
from pipeline.triples.inputs import ScoredPairs, current_scored_pairs
from pipeline.triples.layouts import Layout, Triples
from pipeline.triples.passes import FilterTask, PartTask, Runner, local_runner, shard_facts
from pipeline.triples.scales import recorded_warnings, zscore_threshold
from pipeline.triples.settings import Resources, TripleSettings
from pipeline.triples.shard import Plan, ShardWorker, statement_versions
from pipeline.triples.shuffle import BUCKETS

TRIPLES_PER_PART = 1_000_000
PART_BYTES = 1 << 30
"""Limit for the rows of a part in memory; lists of more than 128 passages need parts of fewer rows."""
TRIPLES = Triples()
SAMPLE_SHARDS, SAMPLE_ROWS = 8, 400_000
STATISTICS_FILE = "statistics.json"
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

__all__ = ["BuiltTriples", "Resources", "TripleSettings", "build_triples", "triples_recipe"]


@dataclass(frozen=True)
class BuiltTriples:
    """Facts of a set that `build_triples` has built, or that was up to date."""

    name: str
    teachers: list[str]
    funnel: Funnel
    statistics: TripleStatistics
    correlations: list[list[float]]
    """(K, K) Pearson correlations between the K teachers, on the fixed sample."""
    ensemble: dict[str, Any]
    margins: dict[str, float]
    """Quantiles of the margins of the candidates, on the fixed sample."""
    spreads: dict[str, float]
    """Standard deviation of each teacher's raw logits, on the fixed sample."""
    scale_warnings: list[str]
    """Sentences about teachers whose scores should not be averaged as they are."""
    zscore_threshold: float | None
    """Threshold for the mean of z-scores that keeps as many candidates of the sample; None if there is none."""
    rows: int
    parts: int
    unchanged: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "funnel": self.funnel.as_dict(), "statistics": self.statistics.as_dict()}


def triples_recipe(
    scored: ScoredPairs, settings: TripleSettings, layout: Layout = TRIPLES, made: Footer | None = None
) -> Recipe:
    """The identity of a set: its settings, the versions of its statements, and the fingerprints of all inputs.

    Args:
        scored: what the set is made from.
        settings: its settings.
        layout: its layout.
        made: footer of the set as it is now. Its identity under an earlier version is returned if the set would have
            the same rows today, as its counts tell.
    """
    counted = made and made.extra.get("funnel")
    if made and counted and Funnel.from_dict(counted).has_single_positives:
        earlier = _recipe(scored, settings, layout, statement_versions(settings, single_positives=True))
        if earlier.fingerprint == made.fingerprint:
            return earlier
    return _recipe(scored, settings, layout, statement_versions(settings))


def _recipe(scored: ScoredPairs, settings: TripleSettings, layout: Layout, versions: dict[str, int]) -> Recipe:
    return Recipe(
        layout.dataset,
        {
            **asdict(settings),
            "teachers": list(scored.teachers),
            "layout": layout.settings,
            "rows_per_part": rows_per_part(layout),
            # Footers used to hold the text of the statements. That text, frozen, is recorded for the first versions, so
            # that sets built before are still up to date.
            "sql": versions if max(versions.values()) > 1 else sql("triples/first_statements"),
        },
        {**scored.contents, **scored.tables},
    )


def rows_per_part(layout: Layout) -> int:
    """Average number of rows in a part."""
    return max(1, min(TRIPLES_PER_PART, PART_BYTES // layout.kind.itemsize))


def build_triples(
    workspace: Workspace,
    settings: TripleSettings,
    *,
    name: str = "default",
    teachers: Sequence[str] = (),
    layout: Layout = TRIPLES,
    resources: Resources | None = None,
    runner: Callable[[Plan], Runner] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> BuiltTriples:
    """Build a set of triples, or of lists, unless it is up to date.

    Args:
        workspace: where pairs and scores are, and where the set goes.
        settings: the filters and the ensemble.
        name: name of the set.
        teachers: names of the teachers; all that have scored if empty.
        layout: triples or lists.
        resources: processes, threads, memory and disk.
        runner: makes a runner for the tasks, as on a cluster; None runs them on this machine.
        on_progress: called with the steps done and the number of all steps.

    Raises:
        UsageError: the settings do not fit the teachers, or the name is not a file name.
        WorkspaceError: pairs or scores are missing or incomplete.
        StaleError: pairs or scores are stale.
        PrepError: nothing is left; the message says which filters dropped it, and shows quantiles of the margins.
    """
    check_name(f"set of {layout.dataset}", name)
    settings, resources = layout.limited(settings), resources or Resources()
    with workspace.exclusive(f"build-{layout.dataset}"):
        scored = current_scored_pairs(workspace, teachers)
        settings.least_agreeing(len(scored.scores))
        paths = workspace.parts(layout.dataset, name)
        recipe = triples_recipe(scored, settings, layout, footer_of(paths[0]) if paths else None)
        if is_made(paths, recipe):
            return _built(name, footer_of(paths[0]), len(paths), unchanged=True)
        with (
            # Other machines must see unfinished files; for this machine alone they stay on the local disk.
            (workspace.shared_staging if runner else workspace.staging)(f"build-{layout.dataset}") as staging,
            scratch(workspace, resources, staging) as spill,
        ):
            plan, sample = make_plan(workspace, scored, settings, layout, resources, staging, spill)
            run = runner(plan) if runner else local_runner(plan, resources.processes, scored.pairs.pairs)
            shards = len(plan.shards)
            run([FilterTask(number) for number in range(shards)], lambda done: on_progress(done, 2 * shards))
            funnel, statistics, rows = shard_facts(plan)
            margins = _quantiles(plan.ensemble.combine(sample.margins()))
            if not rows:
                raise _nothing_left(settings, funnel, margins)
            extra = {
                "funnel": funnel.as_dict(),
                "statistics": statistics.as_dict(),
                "correlations": sample.correlations(),
                "spreads": dict(zip(scored.teachers, sample.spread.tolist(), strict=True)) if len(sample.query) else {},
                "zscore_threshold": zscore_threshold(settings, plan.ensemble, sample),
                "ensemble": plan.ensemble.as_dict(),
                "margins": margins,
                "rows": rows,
                **stale_facts(workspace),
            }
            parts = min(BUCKETS, -(-rows // rows_per_part(layout)))
            made = staging / layout.dataset
            made.mkdir()
            tasks = [PartTask(number, parts, made, recipe, extra) for number in range(parts)]
            run(tasks, lambda done: on_progress(shards + shards * done // parts, 2 * shards))
            built = _built(name, footer_of(made / tasks[0].file), parts, unchanged=False)
            (made / STATISTICS_FILE).write_text(json.dumps(built.as_dict(), indent=2) + "\n", encoding="utf-8")
            replace_directory(made, workspace.path(layout.dataset, name))
        return built


@contextmanager
def scratch(workspace: Workspace, resources: Resources, staging: AnyPath) -> Iterator[Path]:
    """A directory for rows between the passes and for spilling databases; removes what a killed run left there."""
    path = staging / "spill" if isinstance(staging, Path) else workspace.local / staging.name
    if resources.temp_directory is not None:
        path = resources.temp_directory / f"prep-{digest_json([workspace.location, staging.name.split('-')[1:-1]])}"
        shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def make_plan(
    workspace: Workspace,
    scored: ScoredPairs,
    settings: TripleSettings,
    layout: Layout,
    resources: Resources,
    staging: AnyPath,
    spill: Path,
) -> tuple[Plan, Sample]:
    """Resolve the ensemble on the fixed sample, and gather all that a worker needs.

    Raises:
        WorkspaceError: the split has no query, or scores do not match their pairs.
    """
    with connect(spill, memory_limit=resources.memory_limit) as connection:
        view_tables(connection, workspace, "queries")
        require_split(connection, settings.split)
        duplicates = same_texts(connection, workspace)
    plan = Plan(
        scored.shards(),
        tuple(scored.pairs.systems),
        Ensemble.mean(scored.teachers),
        settings,
        layout,
        tuple(workspace.parts("queries")),
        duplicates,
        staging,
        spill if isinstance(staging, Path) else staging,
        spill,
        resources.memory_limit,
        resources.threads,
    )
    sample = _sample(plan, scored.pairs)
    return replace(plan, ensemble=resolve(settings, scored.teachers, sample)), sample


def _sample(plan: Plan, pairs: PairSet) -> Sample:
    """Scored pairs of a few shards, evenly spaced among all, or among those of the split if all gave none."""
    with ShardWorker(plan) as worker:
        sample = _spread_sample(worker, range(len(plan.shards)))
        if not len(sample.query):
            bounds = [(footer.extra["first_query"], footer.extra["last_query"]) for footer in pairs.footers]
            of_split = [number for number, (first, last) in enumerate(bounds) if worker.has_split(number, first, last)]
            sample = _spread_sample(worker, of_split) if of_split else sample
    return sample


def _spread_sample(worker: ShardWorker, numbers: Sequence[int]) -> Sample:
    """Scored pairs of at most SAMPLE_SHARDS of these shards, evenly spaced."""
    count = min(SAMPLE_SHARDS, len(numbers))
    pieces = [worker.sample(numbers[len(numbers) * i // count], SAMPLE_ROWS // count) for i in range(count)]
    return Sample(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in Sample.__annotations__))


def _built(name: str, footer: Footer, parts: int, *, unchanged: bool) -> BuiltTriples:
    extra = footer.extra
    return BuiltTriples(
        name,
        list(footer.recipe.settings["teachers"]),
        Funnel.from_dict(extra["funnel"]),
        TripleStatistics.from_dict(extra["statistics"]),
        extra["correlations"],
        extra["ensemble"],
        # Footers sort their keys as text: "100%" before "25%".
        dict(sorted(extra["margins"].items(), key=lambda quantile: float(quantile[0].rstrip("%")))),
        extra.get("spreads", {}),
        recorded_warnings(footer),
        extra.get("zscore_threshold"),
        extra["rows"],
        parts,
        unchanged,
    )


def _quantiles(margins: np.ndarray) -> dict[str, float]:
    if not len(margins):
        return {}
    return {
        f"{q:.0%}": float(f"{value:.6g}") for q, value in zip(QUANTILES, np.quantile(margins, QUANTILES), strict=True)
    }


def _nothing_left(settings: TripleSettings, funnel: Funnel, margins: dict[str, float]) -> PrepError:
    if not funnel.candidates:
        return PrepError(
            "no triples: no query of the split has both a positive and a negative",
            expected=f"judged and retrieved pairs for split {settings.split!r}",
            found=f"{funnel.positives} positives, {funnel.negatives} negatives",
            todo="check --split and --relevance-level, and that the split was mined",
        )
    shown = ", ".join(f"{name}: {value:.3g}" for name, value in margins.items())
    if settings.threshold is not None and funnel.below_threshold == funnel.candidates:
        return PrepError(
            "the threshold removes every triple",
            expected=f"margins of at least {settings.threshold:g}",
            found=f"{funnel.candidates} margins with quantiles {shown}",
            todo="choose a threshold on this scale (see: prep explore-threshold), or none",
        )
    lost = ", ".join(f"{label} {count}" for label, count, is_loss in funnel.lines() if is_loss)
    return PrepError("the filters remove every triple", found=f"{lost}; margins {shown}", todo="loosen them")
