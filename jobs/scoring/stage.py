"""The stage `score`: scores every pair shard with every named teacher, in this process or in Ray actors.

Only missing and stale shards are scored. A shard's file appears once it is complete, so an interrupted run resumes
with the shards that are left. `jobs.cluster.pool` has everything about Ray.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from jobs.cluster.ledger import Failure, Ledger
from jobs.cluster.settings import ClusterSettings
from jobs.models.token_stores import TABLES, make_stores
from jobs.scoring.shard import ShardScorer, ShardTask
from jobs.scoring.teachers import ResolvedTeacher, Teacher, check_options
from pipeline.errors import IncompleteError, PrepError, UsageError
from pipeline.names import check_name
from pipeline.scores.pairs import PairSet, current_pairs
from pipeline.scores.reuse import OldScores, discard_old_scores, find_old_scores, overlapping, take_scores
from pipeline.scores.scores import missing_shards, read_pair_ids
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import read_footers
from pipeline.tables.staleness import stale_facts
from teachers.scorer import ProgressReporter, Work

MIN_PAIRS_TO_TUNE = 50_000
"""Below this, measuring the best token budget takes longer than it saves."""


@dataclass(frozen=True)
class Scored:
    """Counts of a finished run."""

    pairs: int
    """Newly scored pairs."""
    reused_pairs: int
    """Pairs of the same shards whose scores were copied from older files."""
    shards: int
    kept_shards: int
    """Shards that were complete before the run."""


class ScoringPlan(NamedTuple):
    """The work of a run."""

    tasks: list[ShardTask]
    """Shards to score, largest first within a teacher."""
    shards: int
    """All shards of all teachers, complete ones included."""
    teachers: list[ResolvedTeacher]


class Throughput:
    """Work per second since the start, over all devices; for the progress line and the summary."""

    def __init__(self) -> None:
        self._done, self._begun = Work(), time.monotonic()

    def add(self, work: Work) -> None:
        """Count finished work; retracted work is negative."""
        self._done += work

    def rates(self) -> dict[str, float]:
        """Tokens and floating-point operations per second of all devices together, and two fractions.

        `share_of_peak` is the fraction of the devices' peak speed, `utilisation` the fraction of their time.
        """
        passed = max(time.monotonic() - self._begun, 1e-9)
        device_seconds = max(self._done.seconds, 1e-9)
        return {
            "tokens_per_second": self._done.tokens / passed,
            "tflops": self._done.flop / passed / 1e12,
            "share_of_peak": self._done.peak_seconds / device_seconds,
            "utilisation": self._done.busy_seconds / device_seconds,
        }

    def line(self) -> str:
        """The rates as text."""
        rates: dict[str, Any] = self.rates()
        counted = f"{rates['tflops']:.2f} TFLOP/s ({rates['share_of_peak']:.0%} of peak), " if self._done.flop else ""
        return f"{rates['tokens_per_second']:,.0f} tokens/s, {counted}devices {rates['utilisation']:.0%} busy"


def plan_scoring(
    workspace: Workspace, teachers: Sequence[Teacher], *, overwrite: bool = False, keep: bool = True
) -> ScoringPlan:
    """Resolve the teachers and list the shards that have no scores of them.

    With `keep`, old scores in files that this run will replace are moved aside first, so that shards can reuse them.

    Raises:
        WorkspaceError: no pairs, or scores of another model under one of the names.
        StaleError: the pairs are stale.
        ModelError: a checkpoint does not exist.
    """
    if len({teacher.name for teacher in teachers}) < len(teachers):
        raise UsageError("two teachers with the same name", found=", ".join(teacher.name for teacher in teachers))
    pairs = current_pairs(workspace)
    tasks: list[ShardTask] = []
    resolved = [teacher.resolve() for teacher in teachers]
    check_options(resolved)
    for teacher, found in zip(teachers, resolved, strict=True):
        description = found.description
        missing = missing_shards(
            workspace, pairs, check_name("teacher", teacher.name), description, overwrite=overwrite
        )
        if keep:
            workspace.remove_leftovers("scores", teacher.name)
        old = find_old_scores(workspace, pairs, teacher.name, description, keep=keep) if missing else []
        own_tasks = [replace(_task(found, number, pairs, old), facts=stale_facts(workspace)) for number in missing]
        tuned = sum(task.pairs for task in own_tasks) >= MIN_PAIRS_TO_TUNE
        tasks += (replace(task, tuned=tuned) for task in sorted(own_tasks, key=lambda task: -task.pairs))
    return ScoringPlan(tasks, len(pairs.paths) * len(teachers), resolved)


def score(
    workspace: Workspace,
    teachers: Sequence[Teacher],
    cluster: ClusterSettings,
    *,
    overwrite: bool = False,
    on_plan: Callable[[int], None] = lambda pairs: None,
    on_progress: Callable[[Work], None] = lambda work: None,
    on_tokens: Callable[[int, int], None] = lambda done, total: None,
) -> Scored:
    """Score every shard that is missing or stale.

    Args:
        workspace: has the pairs, and gets the scores.
        teachers: to score with, each under its name.
        cluster: where the work runs.
        overwrite: replace scores of another model under the same name.
        on_plan: receives the number of pairs to score.
        on_progress: receives finished work; negative where it has to be done again.
        on_tokens: receives the texts tokenised beforehand so far, and the size of their table.

    Raises:
        IncompleteError: some shards failed in all attempts; the others are complete.
    """
    tasks, shards, resolved = plan_scoring(workspace, teachers, overwrite=overwrite)
    for teacher in _worth_storing(workspace, tasks, resolved):
        make_stores(workspace, teacher.checkpoint, prompts=teacher.prompts, on_progress=on_tokens)
    on_plan(sum(task.pairs for task in tasks))
    failures = _run(workspace, tasks, cluster, on_progress) if tasks else []
    if failures:
        listed = "\n".join(f"  teacher {f.task.teacher.name}, shard {f.task.number}: {f.reason}" for f in failures)
        raise IncompleteError(
            f"{len(failures)} of {shards} shards failed in all {cluster.max_attempts} attempts:\n{listed}",
            where=workspace.root,
            todo="fix the causes above and run the same command again: only these shards are scored",
        )
    for teacher in resolved:
        discard_old_scores(workspace, teacher.description)
    new, rows = sum(task.pairs for task in tasks), sum(task.rows for task in tasks)
    return Scored(new, rows - new, shards, shards - len(tasks))


def _run(
    workspace: Workspace, tasks: Sequence[ShardTask], cluster: ClusterSettings, on_progress: Callable[[Work], None]
) -> list[Failure[ShardTask]]:
    """Run the tasks here or in actors; returns those that failed in all attempts."""
    if cluster.uses_ray:
        from jobs.cluster.pool import run_on_actors

        return run_on_actors(
            workspace.location, ShardScorer, ShardScorer.score, tasks, cluster, on_progress, stage="score"
        )
    scorer, ledger = ShardScorer(workspace.location), Ledger(tasks, cluster.max_attempts)
    while ledger:
        task, reporter = ledger.take(), ProgressReporter(on_progress)
        try:
            scorer.score(task, reporter.report)
        except PrepError:
            raise
        except Exception as error:
            reporter.retract()
            ledger.failed(task, f"{type(error).__name__}: {error}")
        else:
            ledger.done(task)
    return ledger.failures


def _task(resolved: ResolvedTeacher, number: int, pairs: PairSet, old: Sequence[OldScores]) -> ShardTask:
    """A shard with the old score files that have some of its pairs."""
    paths, rows = overlapping(old, pairs.footers[number]), pairs.footers[number].rows
    new = rows
    if paths:
        new = int(np.isnan(take_scores(paths, read_pair_ids(pairs.paths[number]))).sum())
    return ShardTask(resolved.teacher, resolved.description, number, new, rows, old=tuple(paths))


def _worth_storing(
    workspace: Workspace, tasks: Sequence[ShardTask], teachers: Sequence[ResolvedTeacher]
) -> list[ResolvedTeacher]:
    """One teacher for each tokenizer, with its prompts, that has more pairs to score than there are texts to tokenise.

    With fewer pairs, each shard tokenises only its texts.
    """
    by_name = {teacher.teacher.name: teacher for teacher in teachers}
    pairs: Counter[tuple[str, ...]] = Counter()
    for task in tasks:
        teacher = by_name[task.teacher.name]
        if not teacher.reads_prompt:
            pairs[teacher.tokens_key] += task.pairs
    texts = sum(footer.rows for table in TABLES for footer in read_footers(workspace.parts(table)))
    by_tokens = {teacher.tokens_key: teacher for teacher in reversed(teachers)}
    return [by_tokens[key] for key, count in pairs.items() if count > texts]
