"""The stage `score`: every pair shard with every named teacher, in this process or by Ray actors.

Only missing and stale shards are scored; a shard's file appears when complete, so a run cut short goes on
where it was. Ray itself stands in `jobs.cluster.pool`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jobs.cluster.ledger import Failure, Ledger
from jobs.cluster.settings import ClusterSettings
from jobs.models.checkpoints import local_checkpoint
from jobs.models.token_stores import TABLES, make_stores
from jobs.scoring.budgets import WORTH_TUNING
from jobs.scoring.shard import ShardScorer, ShardTask, Teacher
from pipeline.errors import IncompleteError, PrepError, UsageError
from pipeline.names import check_name
from pipeline.scores.pairs import PairSet, current_pairs
from pipeline.scores.reuse import OldScores, discard_old_scores, find_old_scores, overlapping, take_scores
from pipeline.scores.scores import missing_shards, read_pair_ids
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import read_footers
from teachers.scorer import Told, Work


@dataclass(frozen=True)
class Scored:
    """What a run did."""

    pairs: int
    """Pairs that were scored."""
    reused_pairs: int
    """Pairs of the same shards whose scores were found elsewhere."""
    shards: int
    kept_shards: int
    """Shards that were there already."""


def plan_scoring(
    workspace: Workspace, teachers: Sequence[Teacher], *, overwrite: bool = False, keep: bool = True
) -> tuple[list[ShardTask], int]:
    """The shards to be scored, largest first within a teacher, and the number of all shards.

    With `keep`, scores that stand where other shards will be are moved to where these find them again.

    Raises:
        WorkspaceError: no pairs, or scores of another model under one of the names.
        ModelError: a checkpoint is not there.
    """
    if len({teacher.name for teacher in teachers}) < len(teachers):
        raise UsageError("two teachers of one name", found=", ".join(teacher.name for teacher in teachers))
    pairs = current_pairs(workspace)
    tasks: list[ShardTask] = []
    for teacher in teachers:
        description = teacher.describe()
        missing = missing_shards(
            workspace, pairs, check_name("teacher", teacher.name), description, overwrite=overwrite
        )
        if keep:
            workspace.remove_leftovers("scores", teacher.name)
        old = find_old_scores(workspace, pairs, teacher.name, description, keep=keep) if missing else []
        found = [_task(teacher, description, number, pairs, old) for number in missing]
        tuned = sum(task.pairs for task in found) >= WORTH_TUNING
        tasks += (replace(task, tuned=tuned) for task in sorted(found, key=lambda task: -task.pairs))
    return tasks, len(pairs.paths) * len(teachers)


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
    """Score what is missing. `on_plan` is told the pairs to come, `on_progress` what was just done.

    `on_tokens` is told of texts tokenised beforehand, and all of their table.

    Raises:
        IncompleteError: some shards failed in all attempts; the others are there.
    """
    tasks, shards = plan_scoring(workspace, teachers, overwrite=overwrite)
    for checkpoint in _worth_storing(workspace, tasks):
        make_stores(workspace, local_checkpoint(checkpoint), on_progress=on_tokens)
    on_plan(sum(task.pairs for task in tasks))
    failures = _run(workspace, tasks, cluster, on_progress) if tasks else []
    if failures:
        listed = "\n".join(f"  teacher {f.task.teacher.name}, shard {f.task.number}: {f.reason}" for f in failures)
        raise IncompleteError(
            f"{len(failures)} of {shards} shards failed in all {cluster.max_attempts} attempts:\n{listed}",
            where=workspace.root,
            todo="look at the reasons, then run the same command again: only these are scored",
        )
    for teacher in teachers:
        discard_old_scores(workspace, teacher.describe())
    new, rows = sum(task.pairs for task in tasks), sum(task.rows for task in tasks)
    return Scored(new, rows - new, shards, shards - len(tasks))


def _run(
    workspace: Workspace, tasks: Sequence[ShardTask], cluster: ClusterSettings, on_progress: Callable[[Work], None]
) -> list[Failure[ShardTask]]:
    """Work off the tasks here or in actors; the ones that were set aside."""
    if cluster.uses_ray:
        from jobs.cluster.pool import run_on_actors

        return run_on_actors(
            workspace.location, ShardScorer, ShardScorer.score, tasks, cluster, on_progress, stage="score"
        )
    scorer, ledger = ShardScorer(workspace.location), Ledger(tasks, cluster.max_attempts)
    while ledger:
        task, told = ledger.take(), Told(on_progress)
        try:
            scorer.score(task, told.tell)
        except PrepError:
            raise
        except Exception as error:
            told.take_back()
            ledger.failed(task, f"{type(error).__name__}: {error}")
        else:
            ledger.done(task)
    return ledger.failures


def _task(
    teacher: Teacher, description: Mapping[str, Any], number: int, pairs: PairSet, old: Sequence[OldScores]
) -> ShardTask:
    """A shard, with the scores that may be reused; a file that fits none of its pairs is left out."""
    paths, rows = overlapping(old, pairs.footers[number]), pairs.footers[number].rows
    new = rows
    if paths:
        new = int(np.isnan(take_scores(paths, read_pair_ids(pairs.paths[number]))).sum())
    return ShardTask(teacher, description, number, new, rows, old=tuple(paths))


def _worth_storing(workspace: Workspace, tasks: Sequence[ShardTask]) -> list[str]:
    """A checkpoint for each tokenizer that has more pairs to score than there are texts to tokenise.

    Fewer pairs are tokenised shard by shard, only the texts that are in them.
    """
    pairs: dict[str, int] = {}
    checkpoints: dict[str, str] = {}
    for task in tasks:
        tokenizer = task.description["tokenizer_hash"]
        pairs[tokenizer] = pairs.get(tokenizer, 0) + task.pairs
        checkpoints.setdefault(tokenizer, task.teacher.checkpoint)
    texts = sum(footer.rows for table in TABLES for footer in read_footers(workspace.parts(table)))
    return [checkpoints[tokenizer] for tokenizer, count in pairs.items() if count > texts]
