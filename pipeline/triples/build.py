"""Margin triples from scored pairs: `triples/<name>/part-NNNNN.parquet`, shuffled over all shards.

For each query: every positive with every negative that nothing speaks against, by default a margin of the
ensemble below the threshold, as sentence-transformers filters MS MARCO with 3. `pipeline.triples.settings` says what
can be asked for, `pipeline.triples.ensemble` how teachers become one score.

Two passes, each bounded by a shard or a part (`pipeline.triples.shard`, `pipeline.triples.shuffle`), in this process,
in several, or wherever a `Runner` takes them: the bytes are the same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.collection.same_texts import same_texts
from pipeline.collection.selection import require_split, view_tables
from pipeline.errors import PrepError, WorkspaceError
from pipeline.fingerprint import digest_json
from pipeline.names import check_name
from pipeline.scores.pairs import PairSet, current_pairs
from pipeline.scores.scores import ScoreSet, load_scores
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace, replace_directory
from pipeline.tables.database import DEFAULT_MEMORY_LIMIT, connect, sql
from pipeline.tables.parts import is_made, set_content, set_footers
from pipeline.tables.provenance import Footer, Recipe
from pipeline.triples.ensemble import Ensemble, Sample, resolve
from pipeline.triples.funnel import Funnel
from pipeline.triples.layouts import Layout, Triples
from pipeline.triples.passes import FilterTask, PartTask, Runner, local_runner, shard_facts
from pipeline.triples.settings import TripleSettings
from pipeline.triples.shard import STATEMENTS, Plan, Shard, ShardWorker
from pipeline.triples.shuffle import BUCKETS
from pipeline.triples.statistics import TripleStatistics

TRIPLES_PER_PART = 1_000_000
PART_BYTES = 1 << 30
"""Most that the rows of a part take in memory: lists of more than 128 passages come in smaller parts."""
TRIPLES = Triples()
SAMPLE_SHARDS, SAMPLE_ROWS = 8, 400_000
STATISTICS_FILE = "statistics.json"
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

__all__ = ["BuiltTriples", "Resources", "TripleSettings", "build_triples", "triples_recipe"]


@dataclass(frozen=True)
class Resources:
    """What a build may use; none of it changes the result."""

    processes: int | None = None
    """Worker processes; None: one for each core where there is enough to do."""
    threads: int | None = None
    """Database threads of each worker; None: the cores shared out."""
    memory_limit: str = DEFAULT_MEMORY_LIMIT
    """What each worker's database holds before it spills."""
    temp_directory: Path | None = None
    """Where rows wait between the passes and databases spill; None: inside the workspace."""


@dataclass(frozen=True)
class BuiltTriples:
    """What `build_triples` made or found."""

    name: str
    teachers: list[str]
    funnel: Funnel
    statistics: TripleStatistics
    correlations: list[list[float]]
    """Between each two teachers, (K, K)."""
    ensemble: dict[str, Any]
    margins: dict[str, float]
    """Quantiles of the candidates' margins, on the fixed sample."""
    rows: int
    parts: int
    unchanged: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "funnel": self.funnel.as_dict(), "statistics": self.statistics.as_dict()}


def triples_recipe(
    workspace: Workspace,
    pairs: PairSet,
    scores: Sequence[ScoreSet],
    settings: TripleSettings,
    layout: Layout = TRIPLES,
) -> Recipe:
    """What a build would make: its settings, the versions of its statements, and the fingerprints of all inputs."""
    inputs = input_contents(pairs, scores)
    inputs |= {name: set_content(set_footers(workspace.parts(name))) for name in ("queries", "passages")}
    return Recipe(
        layout.dataset,
        {
            **asdict(settings),
            "teachers": [teacher.teacher for teacher in scores],
            "layout": layout.settings,
            "rows_per_part": rows_per_part(layout),
            # Sets used to record the text of the statements, so the first versions are recorded by that text, frozen.
            "sql": dict(STATEMENTS) if max(STATEMENTS.values()) > 1 else sql("triples/first_statements"),
        },
        inputs,
    )


def rows_per_part(layout: Layout) -> int:
    """Rows that a part holds on average."""
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
    """Build a set of triples, or of another layout, from the named teachers (all under `scores/` if none is named).

    Raises:
        WorkspaceError: pairs or a teacher's scores missing, incomplete or stale.
        PrepError: nothing is left; the message shows where it was lost, and the margins' quantiles.
    """
    check_name(f"set of {layout.dataset}", name)
    settings, resources = layout.asked(settings), resources or Resources()
    with workspace.exclusive(f"build-{layout.dataset}"):
        pairs, scores = scored_inputs(workspace, teachers)
        settings.least_agreeing(len(scores))
        recipe = triples_recipe(workspace, pairs, scores, settings, layout)
        standing = workspace.parts(layout.dataset, name)
        if is_made(standing, recipe):
            footers = set_footers(standing)
            return _found(name, footers[0], len(footers), unchanged=True)
        with (
            # Only other machines need to see what is under way; on this one it stays on disk.
            (workspace.shared_staging if runner else workspace.staging)(f"build-{layout.dataset}") as staging,
            scratch(workspace, resources, staging) as spill,
        ):
            plan, sample = make_plan(workspace, pairs, scores, settings, layout, resources, staging, spill)
            run = runner(plan) if runner else local_runner(plan, resources.processes, pairs.pairs)
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
                "ensemble": plan.ensemble.as_dict(),
                "margins": margins,
                "rows": rows,
            }
            parts = min(BUCKETS, -(-rows // rows_per_part(layout)))
            made = staging / layout.dataset
            made.mkdir()
            tasks = [PartTask(number, parts, made, recipe, extra) for number in range(parts)]
            run(tasks, lambda done: on_progress(shards + shards * done // parts, 2 * shards))
            built = _found(name, set_footers([made / tasks[0].file])[0], parts, unchanged=False)
            (made / STATISTICS_FILE).write_text(json.dumps(built.as_dict(), indent=2) + "\n", encoding="utf-8")
            replace_directory(made, workspace.path(layout.dataset, name))
        return built


def scored_inputs(workspace: Workspace, teachers: Sequence[str]) -> tuple[PairSet, list[ScoreSet]]:
    """Pairs that are up to date and the teachers' complete scores, by name; no name means all that have scored.

    Raises:
        WorkspaceError: something is missing, incomplete or stale.
    """
    names = sorted(set(teachers or workspace.names("scores")))
    if not names:
        raise WorkspaceError(
            "no teacher has scored yet",
            where=workspace.root,
            todo="run: prep score --teacher NAME=CHECKPOINT",
        )
    pairs = current_pairs(workspace)
    return pairs, [load_scores(workspace, pairs, name) for name in names]


def input_contents(pairs: PairSet, scores: Sequence[ScoreSet]) -> dict[str, str]:
    """Content fingerprints of pairs and scores by name."""
    return {"pairs": pairs.content} | {f"scores/{one.teacher}": one.content for one in scores}


@contextmanager
def scratch(workspace: Workspace, resources: Resources, staging: AnyPath) -> Iterator[Path]:
    """Where rows wait and databases spill; clears what a killed run left there."""
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
    pairs: PairSet,
    scores: Sequence[ScoreSet],
    settings: TripleSettings,
    layout: Layout,
    resources: Resources,
    staging: AnyPath,
    spill: Path,
) -> tuple[Plan, Sample]:
    """Resolve the ensemble on the fixed sample, and write down what every worker needs.

    Raises:
        WorkspaceError: no query of the split, or scores that do not fit their pairs.
    """
    with connect(spill, memory_limit=resources.memory_limit) as connection:
        view_tables(connection, workspace, "queries")
        require_split(connection, settings.split)
        duplicates = same_texts(connection, workspace)
    names = tuple(teacher.teacher for teacher in scores)
    shards = tuple(Shard(path, tuple(one.paths[i] for one in scores)) for i, path in enumerate(pairs.paths))
    plan = Plan(
        shards,
        tuple(pairs.systems),
        Ensemble.mean(names),
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
    sample = _sample(plan, pairs)
    return Plan(**{**vars(plan), "ensemble": resolve(settings, names, sample)}), sample


def _sample(plan: Plan, pairs: PairSet) -> Sample:
    """Scored pairs of a few shards spread over all, or over those of the split; the same for the same inputs."""
    with ShardWorker(plan) as worker:
        sample = _spread_sample(worker, range(len(plan.shards)))
        if not len(sample.query):
            bounds = [(footer.extra["first_query"], footer.extra["last_query"]) for footer in pairs.footers]
            holding = [number for number, (first, last) in enumerate(bounds) if worker.holds_split(number, first, last)]
            sample = _spread_sample(worker, holding) if holding else sample
    return sample


def _spread_sample(worker: ShardWorker, numbers: Sequence[int]) -> Sample:
    """Scored pairs of a few of these shards."""
    count = min(SAMPLE_SHARDS, len(numbers))
    pieces = [worker.sample(numbers[len(numbers) * i // count], SAMPLE_ROWS // count) for i in range(count)]
    return Sample(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in Sample.__annotations__))


def _found(name: str, footer: Footer, parts: int, *, unchanged: bool) -> BuiltTriples:
    extra = footer.extra
    return BuiltTriples(
        name,
        list(footer.recipe.settings["teachers"]),
        Funnel(**extra["funnel"]),
        TripleStatistics.from_dict(extra["statistics"]),
        extra["correlations"],
        extra["ensemble"],
        extra["margins"],
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
