"""Estimates the hours of a scoring run: counts the pairs, measures the speed on a sample and extrapolates.

The sample is scored like a run, on one device, in this process or in an actor of the cluster. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.cluster.settings import ClusterSettings
from jobs.scoring.shard import ShardScorer, ShardTask
from jobs.scoring.stage import plan_scoring
from jobs.scoring.teachers import Teacher
from pipeline.errors import PrepError
from pipeline.storage.workspace import Workspace
from teachers.scorer import Work

BYTES_PER_PAIR = 8.4
"""Size of a compressed score file per pair, two ids and a float32; measured on 67,890 pairs of MedQuAD."""


@dataclass(frozen=True)
class Estimate:
    """What a run would take for one teacher."""

    teacher: str
    pairs: int
    """Pairs without a score."""
    reused_pairs: int
    shards: int
    tokens: float
    flop: float
    hours: float
    """Elapsed time with all devices at work."""
    devices: int
    written_bytes: float


def estimate(
    workspace: Workspace, teachers: Sequence[Teacher], cluster: ClusterSettings, *, overwrite: bool = False
) -> list[Estimate]:
    """How much is left to score with each teacher, and how long it takes.

    Raises:
        PrepError: as `jobs.scoring.stage.plan_scoring`, or the sample cannot be scored.
    """
    tasks = plan_scoring(workspace, teachers, overwrite=overwrite, keep=False).tasks
    return [
        _estimate(workspace, teacher, [task for task in tasks if task.teacher is teacher], cluster)
        for teacher in teachers
    ]


def _estimate(workspace: Workspace, teacher: Teacher, tasks: list[ShardTask], cluster: ClusterSettings) -> Estimate:
    pairs = sum(task.pairs for task in tasks)
    rows = sum(task.rows for task in tasks)
    if not pairs:
        return Estimate(teacher.name, 0, rows, len(tasks), 0.0, 0.0, 0.0, 0, rows * BYTES_PER_PAIR)
    done, devices = _measure(workspace, tasks, cluster)
    each = pairs / done.pairs
    hours = each * done.seconds / devices / 3600
    written = rows * BYTES_PER_PAIR
    return Estimate(
        teacher.name, pairs, rows - pairs, len(tasks), each * done.tokens, each * done.flop, hours, devices, written
    )


def _measure(workspace: Workspace, tasks: list[ShardTask], cluster: ClusterSettings) -> tuple[Work, int]:
    """The work of a sample on one device, and how many devices a run would use."""
    total = Work()

    def add(work: Work) -> None:
        nonlocal total
        total += work

    largest = max(tasks, key=lambda task: task.pairs)
    if not cluster.uses_ray:
        ShardScorer(workspace.location).sample(largest, add)
        return total, 1
    from jobs.cluster.pool import actors_that_fit, run_on_actors

    devices = min(actors_that_fit(cluster), len(tasks))
    failures = run_on_actors(workspace.location, ShardScorer, ShardScorer.sample, [largest], cluster, add)
    if failures:
        raise PrepError("the sample cannot be scored", where=f"shard {largest.number}", found=failures[0].reason)
    return total, devices
