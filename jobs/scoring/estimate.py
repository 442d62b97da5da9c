"""What scoring would take: counted where it can be, measured on a sample of the new pairs, scaled up.

The sample is scored as the run would be, on one device, here or in an actor of the cluster; nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.cluster.settings import ClusterSettings
from jobs.scoring.shard import ShardScorer, ShardTask, Teacher
from jobs.scoring.stage import plan_scoring
from pipeline.errors import PrepError
from pipeline.storage.workspace import Workspace
from teachers.scorer import Work

BYTES_PER_PAIR = 8.4
"""Of a score file, compressed: two ids and a float32; measured on 67,890 pairs of MedQuAD."""


@dataclass(frozen=True)
class Estimate:
    """One teacher's part of a run."""

    teacher: str
    pairs: int
    """Without a score yet."""
    reused_pairs: int
    shards: int
    tokens: float
    flop: float
    hours: float
    """On all devices together."""
    devices: int
    written_bytes: float


def estimate(
    workspace: Workspace, teachers: Sequence[Teacher], cluster: ClusterSettings, *, overwrite: bool = False
) -> list[Estimate]:
    """What is left to do for each teacher, and what it takes.

    Raises:
        As `jobs.scoring.stage.plan_scoring`, and what scoring the sample raises.
    """
    tasks, _ = plan_scoring(workspace, teachers, overwrite=overwrite, keep=False)
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
    """What a sample took on one device, and how many devices would work."""
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
